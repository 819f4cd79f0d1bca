/* The spawn block and the boot block: what is written is read back, and nothing else is believed. */
#include "base/os.h"
#include "base/prng.h"
#include "wire/boot.h"
#include "wire/spawn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define POINTERS 64

static size_t encode_sample(char *out, size_t max)
{
    const char *argv[] = {"prog", "-x", "", NULL};
    const char *env[] = {"PATH=/bin", "HOME=/", NULL};
    rf_spawn_t spawn = {
        .flags = RF_SPAWN_STDIO | RF_SPAWN_LIMITS_SET,
        .umask = 022,
        .reserved_permille = 300,
        .weight = 200,
        .user = "alice",
        .cwd = "/tmp",
        .executable = "prog",
        .n_args = 3,
        .n_env = 2,
        .argv = argv,
        .env = env,
        .span_args = (const uint8_t *)"\1\0\2",
        .span_args_size = 3,
    };
    spawn.limits[7][0] = 1024;
    spawn.limits[7][1] = 4096;
    size_t size = 0;
    assert_int_equal(rf_spawn_encode(&spawn, out, max, &size), RF_OK);
    assert_int_equal(size, rf_spawn_size(&spawn));
    assert_int_equal(rf_spawn_encode(&spawn, out, size - 1, &size), RF_ERR_TRUNCATED);
    return rf_spawn_size(&spawn);
}

static void a_block_is_read_back(void **state)
{
    (void)state;
    char bytes[2048];
    const char *pointers[POINTERS];
    rf_spawn_t got;
    size_t size = encode_sample(bytes, sizeof bytes);
    assert_int_equal(rf_spawn_decode(bytes, size, &got, pointers, POINTERS), RF_OK);
    assert_string_equal(got.user, "alice");
    assert_string_equal(got.cwd, "/tmp");
    assert_string_equal(got.executable, "prog");
    assert_int_equal(got.n_args, 3);
    assert_string_equal(got.argv[1], "-x");
    assert_string_equal(got.argv[2], "");
    assert_null(got.argv[3]);
    assert_string_equal(got.env[1], "HOME=/");
    assert_null(got.env[2]);
    assert_int_equal(got.span_args_size, 3);
    assert_memory_equal(got.span_args, "\1\0\2", 3);
    assert_int_equal(got.limits[7][1], 4096);
    assert_int_equal(got.reserved_permille, 300);
}

static void a_cut_or_stretched_block_is_refused(void **state)
{
    (void)state;
    char bytes[2048] = {0};
    const char *pointers[POINTERS];
    rf_spawn_t got;
    size_t size = encode_sample(bytes, sizeof bytes);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(rf_spawn_decode(bytes, cut, &got, pointers, POINTERS), RF_ERR_PROTOCOL);
    assert_int_equal(rf_spawn_decode(bytes, size + 1, &got, pointers, POINTERS), RF_ERR_PROTOCOL);
    assert_int_equal(rf_spawn_decode(bytes, size, &got, pointers, 6), RF_ERR_LIMIT);
    uint32_t many = RF_SPAWN_ARGS_MAX + 1;
    memcpy(bytes + offsetof(rf_spawn_header_t, n_args), &many, sizeof many);
    assert_int_equal(rf_spawn_decode(bytes, size, &got, pointers, POINTERS), RF_ERR_LIMIT);
}

static void random_damage_never_reads_outside(void **state)
{
    (void)state;
    rf_prng_t prng;
    rf_prng_seed(&prng, 7);
    char sample[2048];
    size_t size = encode_sample(sample, sizeof sample);
    for (int round = 0; round < 20000; round++) {
        char *bytes = malloc(size); /* exactly, so that the address sanitizer sees one byte too far */
        const char *pointers[POINTERS];
        rf_spawn_t got;
        assert_non_null(bytes);
        memcpy(bytes, sample, size);
        for (uint64_t i = rf_prng_below(&prng, 8); i > 0; i--)
            bytes[rf_prng_below(&prng, size)] = (char)rf_prng_next(&prng);
        if (rf_spawn_decode(bytes, size, &got, pointers, POINTERS) == RF_OK) {
            assert_true(got.argv[got.n_args] == NULL && got.env[got.n_env] == NULL);
            assert_true(rf_spawn_size(&got) == size);
        }
        free(bytes);
    }
}

static void a_boot_block_is_read_only_and_checked(void **state)
{
    (void)state;
    rf_boot_t *boot = calloc(1, sizeof *boot);
    assert_non_null(boot);
    boot->magic = RF_BOOT_MAGIC;
    boot->size = sizeof *boot;
    boot->n_nodes = 2;
    boot->n_cores = 4;
    boot->node = 1;
    int fd;
    const rf_boot_t *mapped;
    assert_int_equal(rf_boot_publish(boot, &fd), RF_OK);
    assert_int_equal(rf_boot_map(fd, &mapped), RF_OK);
    assert_int_equal(mapped->n_cores, 4);
    assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    munmap((void *)(uintptr_t)mapped, sizeof *mapped);
    close(fd);
    boot->node = 2; /* of 2 */
    assert_int_equal(rf_boot_publish(boot, &fd), RF_OK);
    assert_int_equal(rf_boot_map(fd, &mapped), RF_ERR_PROTOCOL);
    close(fd);
    assert_int_equal(rf_memory_create("small", 4096, &fd), RF_OK);
    assert_int_equal(rf_boot_map(fd, &mapped), RF_ERR_PROTOCOL);
    close(fd);
    free(boot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_read_back),
        cmocka_unit_test(a_cut_or_stretched_block_is_refused),
        cmocka_unit_test(random_damage_never_reads_outside),
        cmocka_unit_test(a_boot_block_is_read_only_and_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
