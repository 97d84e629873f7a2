// What the machine and the C library do between two processes of one host, as limits for what Fairlock does there:
// a robust process-shared mutex, a futex hand-over, one cache line that goes to and fro.
//
// usage: rivals pair ROUNDS | line CORE CORE ROUNDS | futex CORE CORE ROUNDS | handoff CORE CORE ROUNDS | wake CORE CORE ROUNDS
// Prints p50, p99 and p99.9 in nanoseconds, of batches where one of them is shorter than a clock read.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, PAIRS = 1000 };

struct shared {
    _Alignas(64) _Atomic uint64_t line;
    _Alignas(64) _Atomic uint32_t ping;
    _Alignas(64) _Atomic uint32_t pong;
    _Alignas(64) pthread_mutex_t mutex;
    _Alignas(64) _Atomic uint64_t released_at;
    _Alignas(64) _Atomic uint32_t owner;
    _Alignas(64) _Atomic uint32_t over;
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) perror("not pinned");
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print(double *samples, size_t count) {
    if (count == 0) exit(1);
    qsort(samples, count, sizeof *samples, by_size);
    printf("%.2f %.2f %.2f\n", samples[count / 2], samples[count - 1 - count / 100], samples[count - 1 - count / 1000]);
}

static void sleep_on(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }

static void make_mutex(struct shared *s, int robust) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    if (robust) pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&s->mutex, &a);
}

// Lock and unlock with nobody else about, a thousand at a time.
static void pair(struct shared *s, size_t rounds, double *out) {
    make_mutex(s, 1);
    for (size_t r = 0; r < rounds; r++) {
        uint64_t begun = now();
        for (int i = 0; i < PAIRS; i++) {
            pthread_mutex_lock(&s->mutex);
            pthread_mutex_unlock(&s->mutex);
        }
        out[r] = (double)(now() - begun) / PAIRS;
    }
    print(out, rounds);
}

// One line goes to the other core and back, both spinning.
static void line(struct shared *s, int other, size_t rounds, double *out) {
    if (fork() == 0) {
        pin(other);
        for (uint64_t turn = 1; !atomic_load(&s->over);)
            if (atomic_load_explicit(&s->line, memory_order_acquire) == turn) {
                atomic_store_explicit(&s->line, turn + 1, memory_order_release);
                turn += 2;
            }
        _exit(0);
    }
    uint64_t turn = 0;
    for (size_t r = 0; r < rounds; r++) {
        uint64_t begun = now();
        for (int i = 0; i < BATCH; i++) {
            atomic_store_explicit(&s->line, turn + 1, memory_order_release);
            while (atomic_load_explicit(&s->line, memory_order_acquire) != turn + 2) {}
            turn += 2;
        }
        out[r] = (double)(now() - begun) / BATCH;
    }
    atomic_store(&s->over, 1);
    print(out, rounds);
}

// Two processes wake each other in turn, both asleep meanwhile.
static void futex(struct shared *s, int other, size_t rounds, double *out) {
    if (fork() == 0) {
        pin(other);
        for (uint32_t turn = 0;; turn++) {
            while (atomic_load(&s->ping) == turn) sleep_on(&s->ping, turn);
            if (atomic_load(&s->over)) _exit(0);
            atomic_store(&s->pong, turn + 1);
            wake(&s->pong);
        }
    }
    uint32_t turn = 0;
    for (size_t r = 0; r < rounds; r++, turn++) {
        uint64_t begun = now();
        atomic_store(&s->ping, turn + 1);
        wake(&s->ping);
        while (atomic_load(&s->pong) == turn) sleep_on(&s->pong, turn);
        out[r] = (double)(now() - begun);
    }
    atomic_store(&s->over, 1);
    atomic_store(&s->ping, turn + 1);
    wake(&s->ping);
    print(out, rounds);
}

// From the wake-up of a sleeping process until it runs.
static void woken(struct shared *s, int other, size_t rounds, double *out) {
    if (fork() == 0) {
        pin(other);
        for (uint32_t turn = 0;; turn++) {
            while (atomic_load(&s->ping) == turn) sleep_on(&s->ping, turn);
            uint64_t at = now();
            if (atomic_load(&s->over)) _exit(0);
            atomic_store(&s->released_at, at);
            atomic_store(&s->pong, turn + 1);
        }
    }
    uint32_t turn = 0;
    for (size_t r = 0; r < rounds; r++, turn++) {
        usleep(300);
        uint64_t begun = now();
        atomic_store(&s->ping, turn + 1);
        wake(&s->ping);
        while (atomic_load(&s->pong) == turn) sched_yield();
        out[r] = (double)(atomic_load(&s->released_at) - begun);
    }
    atomic_store(&s->over, 1);
    atomic_store(&s->ping, turn + 1);
    wake(&s->ping);
    print(out, rounds);
}

// Two processes want one mutex all the time: from the unlock of one to the lock of the other.
static void handoff(struct shared *s, int other, size_t rounds, double *out) {
    make_mutex(s, 0);
    uint32_t me = 1;
    if (fork() == 0) {
        pin(other);
        me = 2;
    }
    for (size_t got = 0; me == 2 ? !atomic_load(&s->over) : got < rounds;) {
        pthread_mutex_lock(&s->mutex);
        uint64_t at = now();
        if (atomic_load(&s->owner) == 3 - me && me == 1) out[got++] = (double)(at - atomic_load(&s->released_at));
        atomic_store(&s->owner, me);
        atomic_store(&s->released_at, now());
        pthread_mutex_unlock(&s->mutex);
    }
    if (me == 2) _exit(0);
    atomic_store(&s->over, 1);
    print(out, rounds);
}

int main(int count, char **words) {
    if (count < 3) return 64;
    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) return 71;
    size_t rounds = strtoul(words[count - 1], NULL, 10);
    double *out = calloc(rounds ? rounds : 1, sizeof *out);
    if (!out || !rounds) return 64;
    int other = count == 5 ? atoi(words[3]) : 0;
    if (count == 5) pin(atoi(words[2]));
    if (!strcmp(words[1], "pair")) pair(s, rounds, out);
    else if (count != 5) return 64;
    else if (!strcmp(words[1], "line")) line(s, other, rounds, out);
    else if (!strcmp(words[1], "futex")) futex(s, other, rounds, out);
    else if (!strcmp(words[1], "wake")) woken(s, other, rounds, out);
    else if (!strcmp(words[1], "handoff")) handoff(s, other, rounds, out);
    else return 64;
    fflush(stdout);
    while (wait(NULL) > 0) {}
    return 0;
}
