/* What the message side's files share. */
#ifndef TOWLINE_MESSAGES_PARTS_H
#define TOWLINE_MESSAGES_PARTS_H

#include "towline/messages.h"

uint64_t tl_messages_now(const tl_messages *);
int64_t tl_messages_wall_ms(const tl_messages *); /* -1: not known */
uint32_t tl_messages_random(const tl_messages *);
/* An envelope's head in the message side's one buffer, with room for `cap` bytes in all. */
tl_out tl_messages_head(tl_messages *, const char *type, int64_t ts_ms, size_t cap);
tl_outbox_report tl_messages_outbox(const tl_messages *);

/* session_mqtt.c: the connection. */
uint64_t tl_session_run(tl_messages *, uint64_t now_ms);

#endif
