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

# rf_across_files(flow server): modules that a loop calls for each slot. Wherever they are linked, functions of one file are taken
# into those of another, so that a boundary between files, or between two of these modules, costs a slot nothing. Only gcc, whose
# linker knows how without more, and only what is optimised.
function(rf_across_files)
  if(CMAKE_C_COMPILER_ID STREQUAL GNU AND NOT RF_SANITIZE)
    set_target_properties(${ARGN} PROPERTIES INTERPROCEDURAL_OPTIMIZATION_RELWITHDEBINFO ON
                          INTERPROCEDURAL_OPTIMIZATION_RELEASE ON)
  endif()
endfunction()

# rf_program(NAME rf-monitor SOURCES main.c DEPS monitor): a system program; lands in <build>/bin
# and is installed to libexec/rackfish unless BIN is given (then to bin).
# `programs` is the target of all of them, with the loadable transports: what a machine needs to run, and, unless sanitizers look
# at it, each TOOL beside it.
add_custom_target(programs)

function(rf_program)
  cmake_parse_arguments(P "BIN;NO_INSTALL;TOOL" "NAME" "SOURCES;DEPS" ${ARGN})
  add_executable(${P_NAME} ${P_SOURCES})
  if(NOT (P_TOOL AND RF_SANITIZE))
    add_dependencies(programs ${P_NAME})
  endif()
  target_link_libraries(${P_NAME} PRIVATE ${P_DEPS} rf_options)
  set_target_properties(${P_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
  if(P_BIN)
    install(TARGETS ${P_NAME} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
  elseif(NOT P_NO_INSTALL)
    install(TARGETS ${P_NAME} RUNTIME DESTINATION "${CMAKE_INSTALL_LIBEXECDIR}/rackfish")
  endif()
endfunction()

# Seconds until ctest gives a test up: far beyond what it takes, so that a loaded machine fails none; sanitizers are slow.
function(rf_timeout NAME)
  if(NOT ${NAME})
    set(${NAME} 300)
  endif()
  if(RF_SANITIZE)
    math(EXPR ${NAME} "${${NAME}} * 4")
  endif()
  set(${NAME} "${${NAME}}" PARENT_SCOPE)
endfunction()

# Where tests run (`./check`):
#   quick     part of `./check quick`
#   threads   with the thread sanitizer, too: its processes have threads, or handlers of signals. All others have nothing for it to see.
#   lab, cluster, chaos, processes   on guests, machines and processes that outnumber the CPUs; `./check` gives one that failed beside
#             others a second run alone, and says so
#   no-asan   not with the address sanitizer, for the reason beside the label; nor is it built with one
#   part      not by `./check release`: a longer form of it, of which it is the beginning, runs there
# What `./check tsan` builds: the tests labelled threads, and what a machine needs.
add_custom_target(threads)
add_dependencies(threads programs)

# What ctest is told of a test, for rf_test and rf_script_test; options of either:
#   LABELS ...    above
#   TIMEOUT s     after which it is given up
#   COST s        about how long it takes, where that is long: the longest begin first
#   PROCESSORS n  it keeps so many busy
#   LOCK name     nothing else of that name runs beside it: cluster, machines, mostly of emulated hosts; net, chaos and hosts in network
#                 namespaces; lab, guests; as long as each other. Since they run one after the other, they begin before all others.
#   SERIAL        nothing runs beside it, because it judges shares of time
# Exit status 77 means skipped, with the reason printed.
set(rf_test_options SERIAL)
set(rf_test_values NAME TIMEOUT COST PROCESSORS LOCK)
set(rf_test_lists LABELS ARGS)

macro(rf_test_properties)
  rf_timeout(T_TIMEOUT)
  set_tests_properties(${T_NAME} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT} SKIP_RETURN_CODE 77)
  if(T_LOCK)
    set_tests_properties(${T_NAME} PROPERTIES RESOURCE_LOCK ${T_LOCK})
    math(EXPR T_COST "1000 + 0${T_COST}")
  endif()
  if(T_COST)
    set_tests_properties(${T_NAME} PROPERTIES COST ${T_COST})
  endif()
  if(T_PROCESSORS)
    set_tests_properties(${T_NAME} PROPERTIES PROCESSORS ${T_PROCESSORS})
  endif()
  if(T_SERIAL)
    set_tests_properties(${T_NAME} PROPERTIES RUN_SERIAL ON)
  endif()
endmacro()

# rf_test(NAME base_histogram SOURCES x_test.c DEPS base LABELS quick TIMEOUT 60): a cmocka program.
function(rf_test)
  cmake_parse_arguments(T "${rf_test_options}" "${rf_test_values}" "SOURCES;DEPS;${rf_test_lists}" ${ARGN})
  if(NOT RF_BUILD_TESTS)
    return()
  endif()
  add_executable(test_${T_NAME} ${T_SOURCES})
  target_link_libraries(test_${T_NAME} PRIVATE ${T_DEPS} PkgConfig::CMOCKA rf_options)
  set_target_properties(test_${T_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  if("threads" IN_LIST T_LABELS)
    add_dependencies(threads test_${T_NAME})
  endif()
  if(RF_SANITIZE AND "no-asan" IN_LIST T_LABELS)
    set_target_properties(test_${T_NAME} PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
  add_test(NAME ${T_NAME} COMMAND test_${T_NAME} ${T_ARGS})
  rf_test_properties()
endfunction()

# rf_script_test(NAME x SCRIPT path LABELS quick TIMEOUT 60): a shell test; gets the build folder as $1.
function(rf_script_test)
  cmake_parse_arguments(T "${rf_test_options}" "SCRIPT;${rf_test_values}" "${rf_test_lists}" ${ARGN})
  if(NOT RF_BUILD_TESTS)
    return()
  endif()
  add_test(NAME ${T_NAME} COMMAND bash "${CMAKE_SOURCE_DIR}/${T_SCRIPT}" "${CMAKE_BINARY_DIR}" ${T_ARGS})
  rf_test_properties()
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
