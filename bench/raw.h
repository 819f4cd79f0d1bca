/*
 * The raw limits: what the machine itself costs, written by hand with nothing of Rackfish in between. Every bench
 * states its ratio to one of these, measured in the same run. Results are in nanoseconds unless said; false when
 * the measurement could not be made (the reason is on standard error).
 */
#ifndef RF_BENCH_RAW_H
#define RF_BENCH_RAW_H

#include "bench.h"
#include "result.h"

/* One cache line there and one back, always the same two, polled: half the round trip. */
bool raw_line_bounce(const unsigned cores[2], unsigned samples, bench_samples_t *out);

/* One 64-byte slot there and one back, polled, in rings of `slots`: half the round trip. */
bool raw_slot_bounce(const unsigned cores[2], unsigned slots, unsigned samples, bench_samples_t *out);

/* 64-byte slots one way through a ring of `slots`: million slots a second, one sample a chunk of 16,384. */
bool raw_slot_stream(const unsigned cores[2], unsigned slots, unsigned chunks, bench_samples_t *out);

/* Two threads on one core hand it to each other by futex: there and back. */
bool raw_futex_handover(unsigned core, unsigned rounds, bench_samples_t *out);

/* Waking a thread that sleeps in a futex on cores[1], until its answer is seen by the spinning waker. */
bool raw_futex_wake(const unsigned cores[2], unsigned rounds, bench_samples_t *out);

/* The cheapest system call. */
bool raw_syscall(unsigned core, unsigned rounds, bench_samples_t *out);

/* 64 bytes over TCP on loopback, both sides spinning: half the round trip. */
bool raw_tcp_pingpong(const unsigned cores[2], unsigned rounds, bench_samples_t *out);

/* The same with both sides asleep in recv() between messages. */
bool raw_tcp_blocking(const unsigned cores[2], unsigned rounds, bench_samples_t *out);

/* Bytes one way over TCP on loopback, `send_size` a send: bytes a nanosecond, one sample a chunk of `chunk` bytes. */
bool raw_tcp_stream(const unsigned cores[2], size_t send_size, size_t chunk, unsigned chunks,
                    bench_samples_t *out);

/* posix_spawn of a program that does nothing, and waiting for it. */
bool raw_spawn_wait(unsigned core, unsigned rounds, bench_samples_t *out);

#endif
