/* Checks over CMocka: one that fails says where and lets the test go on; the test is red at its end. On the target
 * there is no CMocka: the same tests run one after the other and the exit code tells. */
#ifndef TOWLINE_CHECK_H
#define TOWLINE_CHECK_H

#include <stdio.h>
#include <string.h>

static int check_failed, check_count;

#define CHECK_NAMED(holds, name)                                                        \
    do {                                                                                \
        check_count++;                                                                  \
        if (!(holds)) {                                                                 \
            check_failed++;                                                             \
            printf("%s:%d: %s [%s]\n", __FILE__, __LINE__, #holds, (name));             \
        }                                                                               \
    } while (0)
#define CHECK(holds) CHECK_NAMED(holds, "")

typedef struct {
    const char *name;
    void (*run)(void);
} check_test;

#define CHECK_TEST(function) {#function, function}

/* main's last words: return CHECK_ALL(tests), an array of check_test. */
#define CHECK_ALL(tests) check_all((tests), sizeof(tests) / sizeof(tests)[0])

enum { CHECK_MAX_TESTS = 64 };

#ifdef TOWLINE_RV32

static inline int check_all(const check_test *tests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int before = check_failed;
        tests[i].run();
        printf("%s %s\n", check_failed == before ? "ok" : "FAILED", tests[i].name);
    }
    printf("%d checks, %d failed\n", check_count, check_failed);
    return check_failed != 0 || check_count == 0;
}

#else

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static inline void check_one(void **state)
{
    const check_test *test = *state;
    const int failed = check_failed, counted = check_count;
    test->run();
    fflush(stdout);
    if (check_failed != failed) {
        fail_msg("%d of %d checks failed", check_failed - failed, check_count - counted);
    }
}

static inline int check_all(const check_test *tests, size_t count)
{
    struct CMUnitTest group[CHECK_MAX_TESTS];
    if (count > CHECK_MAX_TESTS) {
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        group[i] = (struct CMUnitTest){tests[i].name, check_one, NULL, NULL, (void *)(uintptr_t)&tests[i]};
    }
    const int failed = _cmocka_run_group_tests("tests", group, count, NULL, NULL);
    printf("%d checks, %d failed\n", check_count, check_failed);
    return failed != 0 || check_count == 0;
}

#endif

#endif
