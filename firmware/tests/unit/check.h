/* Checks that tell where they failed; the exit code says whether all held. */
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

static inline int check_result(void)
{
    printf("%d checks, %d failed\n", check_count, check_failed);
    return check_failed != 0;
}

#endif
