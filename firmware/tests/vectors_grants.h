/* Types of grants.json. */
#ifndef TOWLINE_VECTORS_GRANTS_H
#define TOWLINE_VECTORS_GRANTS_H

#include "towline/span.h"

typedef struct {
    const char *name;
    int64_t number;
    tl_span text;
} vector_key_list;

typedef struct {
    const char *name;
    tl_span text;
    bool has_signature; /* the root's holds: something else is odd */
} vector_bad_list;

typedef struct {
    const char *name;
    tl_span grant_id, token;
    size_t list; /* which is in force */
    int64_t wall_s;
    const char *service; /* that is asked for */
    int code;            /* REFUSED's; 0: it opens */
    bool has_signature;  /* one that holds under a listed key */
} vector_token;

typedef struct {
    const char *device;
    int64_t earliest_s;
    tl_span root, bad_lists_root; /* points */
} vector_grants;

extern const vector_key_list vector_key_lists[];
extern const size_t vector_key_lists_count;
extern const vector_bad_list vector_bad_lists[];
extern const size_t vector_bad_lists_count;
extern const vector_token vector_tokens[];
extern const size_t vector_tokens_count;
extern const vector_grants vector_grants_case;

#endif
