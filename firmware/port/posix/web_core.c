/* The core's side of the web server: rooms to write answers into, and what libmicrohttpd is told of them. */
#include <string.h>

#include "web_answer.h"
#include "web_parts.h"

void tl_web_resume_waiting(tl_web *web)
{
    for (size_t i = 0; i < TL_WEB_CONNECTIONS; i++) {
        tl_web_resume(web->waiting[i]);
        web->waiting[i] = NULL;
    }
}

static tl_web_place *place_of(tl_web *web, tl_web_ref ref)
{
    tl_web_place *place = &web->place[tl_web_slot(ref) % TL_WEB_SLOTS];
    return ref != 0 && place->ref == ref && !place->core_done ? place : NULL;
}

void tl_web_free_if_over(tl_web *web, tl_web_place *place)
{
    if (!place->core_done || place->request != NULL) {
        return;
    }
    if (place->response != NULL && !place->queued) {
        MHD_destroy_response(place->response);
    }
    place->ref = 0;
    tl_web_resume_waiting(web);
}

/* --- libmicrohttpd reads the answer --- */

static ssize_t read_answer(void *of, uint64_t at, char *to, size_t room)
{
    tl_web_request *r = of;
    tl_web *web = r->web;
    tl_web_place *place = r->place;
    (void)at;
    pthread_mutex_lock(&web->lock);
    const size_t left = place->answer_n - place->answer_at;
    const size_t n = left < room ? left : room;
    ssize_t result = (ssize_t)n;
    bool tell = false;
    memcpy(to, place->answer + place->answer_at, n);
    place->answer_at += n;
    if (n > 0 && n == left) {
        place->answer_at = place->answer_n = 0;
        tell = place->wants_room && !place->core_done;
        place->wants_room = place->wants_room && !tell;
    } else if (n == 0 && place->how == TL_FILL_END) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (n == 0 && (place->how == TL_FILL_BROKEN || web->stopping)) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (n == 0) {
        tl_web_suspend(r);
    }
    const tl_event room_is = {.kind = TL_EVENT_WEB_ROOM, .number = place->ref};
    pthread_mutex_unlock(&web->lock);
    if (tell && !tl_queue_post(web->queue, &room_is)) {
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    return result;
}

/* --- the core's side --- */

static void read_on(void *with, tl_web_ref ref)
{
    tl_web *web = with;
    pthread_mutex_lock(&web->lock);
    tl_web_place *place = place_of(web, ref);
    if (place != NULL) {
        place->wants_body = true;
        tl_web_resume(place->request);
    }
    pthread_mutex_unlock(&web->lock);
}

static bool take(void *with, tl_web_ref ref, tl_out *answer)
{
    tl_web *web = with;
    pthread_mutex_lock(&web->lock);
    tl_web_place *place = place_of(web, ref);
    const bool room = place != NULL && place->request != NULL && place->answer_n == 0;
    if (place != NULL) {
        place->wants_room = !room;
        *answer = (tl_out){place->answer, 0, TL_WEB_ANSWER_ROOM, false};
    }
    pthread_mutex_unlock(&web->lock);
    return room;
}

static bool add_header(void *to, const char *name, const char *value)
{
    return MHD_add_response_header(to, name, value) == MHD_YES;
}

static bool ignore_header(void *to, const char *name, const char *value)
{
    (void)to;
    (void)name;
    (void)value;
    return true;
}

/* The answer's head came: from here libmicrohttpd knows what to expect. False: it is none. */
static bool make_response(tl_web_place *place, size_t n)
{
    tl_span answer = {place->answer, n};
    tl_web_head head;
    if (!tl_web_take_head(&answer, &head, ignore_header, NULL)) {
        return false;
    }
    place->chunked = head.length == TL_WEB_LENGTH_CHUNKED;
    struct MHD_Response *response =
        head.length == 0 ? MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT)
                         : MHD_create_response_from_callback(place->chunked ? MHD_SIZE_UNKNOWN : head.length,
                                                             TL_WEB_ANSWER_ROOM, read_answer, place->request, NULL);
    if (response == NULL) {
        return false;
    }
    answer = (tl_span){place->answer, n};
    if (!tl_web_take_head(&answer, &head, add_header, response)) {
        MHD_destroy_response(response);
        return false;
    }
    place->response = response;
    place->status = head.status;
    place->answer_at = n - answer.n;
    return true;
}

static void put_answer(tl_web_place *place, size_t n)
{
    place->answer_n = n;
    place->answer_at = 0;
    if (place->response == NULL && !make_response(place, n)) {
        place->how = TL_FILL_BROKEN;
        place->core_done = true;
        place->answer_n = 0;
        return;
    }
    if (place->chunked) {
        place->answer_n =
            place->answer_at + tl_web_unchunk(place->answer + place->answer_at, n - place->answer_at);
    }
    if (place->answer_at == place->answer_n) {
        place->answer_at = place->answer_n = 0;
    }
}

static void send_answer(void *with, tl_web_ref ref, size_t n, tl_fill how)
{
    tl_web *web = with;
    pthread_mutex_lock(&web->lock);
    tl_web_place *place = place_of(web, ref);
    if (place != NULL) {
        place->how = how;
        place->core_done = how == TL_FILL_END || how == TL_FILL_BROKEN;
        if (n > 0 && place->request != NULL) {
            put_answer(place, n);
        }
        if (n > 0 || place->core_done) {
            tl_web_resume(place->request);
        }
        tl_web_free_if_over(web, place);
    }
    pthread_mutex_unlock(&web->lock);
}

void tl_web_core_side(tl_web *web)
{
    web->port.read_on = read_on;
    web->port.take = take;
    web->port.send = send_answer;
}
