# One static library per folder, and no global include path.
#
# rf_module(NAME base FOLDER base SOURCES a.c b.c DEPS other PRIVATE_LIBS pthread)
#
# The headers directly inside FOLDER are linked into a private include tree,
# <build>/include/<NAME>/<FOLDER>/x.h, and that tree is the only include path the target exports.
# So `#include "cap/cap.h"` compiles only in a target that names `cap` among its DEPS: a wrong
# arrow between folders does not compile.

function(rf_export_headers target name folder)
  file(GLOB headers CONFIGURE_DEPENDS RELATIVE "${CMAKE_SOURCE_DIR}/${folder}"
       "${CMAKE_SOURCE_DIR}/${folder}/*.h")
  set(tree "${CMAKE_BINARY_DIR}/include/${name}")
  file(MAKE_DIRECTORY "${tree}/${folder}")
  foreach(header IN LISTS headers)
    if(NOT EXISTS "${tree}/${folder}/${header}")
      file(CREATE_LINK "${CMAKE_SOURCE_DIR}/${folder}/${header}" "${tree}/${folder}/${header}" SYMBOLIC)
    endif()
  endforeach()
  target_include_directories(${target} PUBLIC "$<BUILD_INTERFACE:${tree}>")
endfunction()

function(rf_module)
  cmake_parse_arguments(M "" "NAME;FOLDER" "SOURCES;DEPS;PRIVATE_LIBS" ${ARGN})
  add_library(${M_NAME} STATIC ${M_SOURCES})
  rf_export_headers(${M_NAME} ${M_NAME} ${M_FOLDER})
  target_link_libraries(${M_NAME} PUBLIC ${M_DEPS} PRIVATE ${M_PRIVATE_LIBS} rf_options)
  set_target_properties(${M_NAME} PROPERTIES OUTPUT_NAME rf_${M_NAME} POSITION_INDEPENDENT_CODE ON)
endfunction()

# rf_program(NAME rf-monitor SOURCES main.c DEPS monitor): a system program; lands in <build>/bin
# and is installed to libexec/rackfish unless BIN is given (then to bin).
# `programs` is the target of all of them, with the loadable transports: what a machine needs to run.
add_custom_target(programs)

function(rf_program)
  cmake_parse_arguments(P "BIN;NO_INSTALL" "NAME" "SOURCES;DEPS" ${ARGN})
  add_executable(${P_NAME} ${P_SOURCES})
  add_dependencies(programs ${P_NAME})
  target_link_libraries(${P_NAME} PRIVATE ${P_DEPS} rf_options)
  set_target_properties(${P_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
  if(P_BIN)
    install(TARGETS ${P_NAME} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
  elseif(NOT P_NO_INSTALL)
    install(TARGETS ${P_NAME} RUNTIME DESTINATION "${CMAKE_INSTALL_LIBEXECDIR}/rackfish")
  endif()
endfunction()

# rf_test(NAME base_histogram SOURCES x_test.c DEPS base LABELS quick TIMEOUT 60): a cmocka program.
# LABELS quick: part of `./check quick`. Exit status 77 means skipped, with the reason printed.
function(rf_test)
  cmake_parse_arguments(T "SERIAL" "NAME;TIMEOUT" "SOURCES;DEPS;LABELS;ARGS" ${ARGN})
  if(NOT RF_BUILD_TESTS)
    return()
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  add_executable(test_${T_NAME} ${T_SOURCES})
  target_link_libraries(test_${T_NAME} PRIVATE ${T_DEPS} PkgConfig::CMOCKA rf_options)
  set_target_properties(test_${T_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  add_test(NAME ${T_NAME} COMMAND test_${T_NAME} ${T_ARGS})
  set_tests_properties(${T_NAME} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT}
                       SKIP_RETURN_CODE 77)
  if(T_SERIAL)
    set_tests_properties(${T_NAME} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# rf_script_test(NAME x SCRIPT path LABELS quick TIMEOUT 60): a shell test; gets the build folder as $1.
function(rf_script_test)
  cmake_parse_arguments(T "SERIAL" "NAME;SCRIPT;TIMEOUT" "LABELS;ARGS" ${ARGN})
  if(NOT RF_BUILD_TESTS)
    return()
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  add_test(NAME ${T_NAME} COMMAND bash "${CMAKE_SOURCE_DIR}/${T_SCRIPT}" "${CMAKE_BINARY_DIR}" ${T_ARGS})
  set_tests_properties(${T_NAME} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT}
                       SKIP_RETURN_CODE 77)
  if(T_SERIAL)
    set_tests_properties(${T_NAME} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# rf_fuzzer(NAME slot SOURCES slot_fuzz.c DEPS transport): with clang, a libFuzzer program and a ctest that
# runs it for RF_FUZZ_SECONDS; with gcc the same source is not built. What it finds of interest is kept in the build
# folder for the next run; further folders in ARGS are only read.
function(rf_fuzzer)
  cmake_parse_arguments(F "" "NAME" "SOURCES;DEPS;ARGS" ${ARGN})
  if(NOT RF_BUILD_FUZZERS)
    return()
  endif()
  add_executable(fuzz_${F_NAME} ${F_SOURCES})
  target_link_libraries(fuzz_${F_NAME} PRIVATE ${F_DEPS} rf_options)
  target_compile_options(fuzz_${F_NAME} PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_${F_NAME} PRIVATE -fsanitize=fuzzer)
  set_target_properties(fuzz_${F_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz")
  file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz/corpus/${F_NAME}")
  add_test(NAME fuzz_${F_NAME} COMMAND fuzz_${F_NAME} -max_total_time=${RF_FUZZ_SECONDS} -verbosity=0
           -artifact_prefix=${CMAKE_BINARY_DIR}/fuzz/ ${CMAKE_BINARY_DIR}/fuzz/corpus/${F_NAME} ${F_ARGS})
  set_tests_properties(fuzz_${F_NAME} PROPERTIES LABELS fuzz TIMEOUT 300)
endfunction()

# rf_protobuf(TARGET node PROTO node/control.proto): compiles a schema with protoc-c into the build folder and adds the
# code to TARGET, which alone sees "<name>.pb-c.h" (and, with PUBLIC, so does whoever names TARGET among its DEPS).
function(rf_protobuf)
  cmake_parse_arguments(P "PUBLIC" "TARGET;PROTO" "" ${ARGN})
  get_filename_component(folder "${P_PROTO}" DIRECTORY)
  get_filename_component(name "${P_PROTO}" NAME_WE)
  find_program(RF_PROTOC_C protoc-c REQUIRED)
  set(out "${CMAKE_BINARY_DIR}/proto/${P_TARGET}")
  file(MAKE_DIRECTORY "${out}")
  add_custom_command(
    OUTPUT "${out}/${name}.pb-c.c" "${out}/${name}.pb-c.h"
    COMMAND "${RF_PROTOC_C}" "--proto_path=${CMAKE_SOURCE_DIR}/${folder}" "--c_out=${out}"
            "${CMAKE_SOURCE_DIR}/${P_PROTO}"
    DEPENDS "${CMAKE_SOURCE_DIR}/${P_PROTO}" VERBATIM)
  set_source_files_properties("${out}/${name}.pb-c.c" PROPERTIES COMPILE_OPTIONS "-w")
  target_sources(${P_TARGET} PRIVATE "${out}/${name}.pb-c.c" "${out}/${name}.pb-c.h")
  if(P_PUBLIC)
    target_include_directories(${P_TARGET} SYSTEM PUBLIC "$<BUILD_INTERFACE:${out}>")
    target_link_libraries(${P_TARGET} PUBLIC PkgConfig::PROTOBUF_C)
  else()
    target_include_directories(${P_TARGET} SYSTEM PRIVATE "${out}")
    target_link_libraries(${P_TARGET} PRIVATE PkgConfig::PROTOBUF_C)
  endif()
endfunction()
