/* What the core's own structures take on the target, a line each: "name bytes". tests/firmware reads it. */
#include <stdio.h>

#include "device_parts.h"

#define SAY(type) printf(#type " %u\n", (unsigned)sizeof(type))

/* The one block that a device takes, with that many streams. */
static void say_device(uint32_t streams)
{
    const tl_config config = {.max_streams = streams};
    printf("device_with_%u_streams %u\n", (unsigned)streams, (unsigned)tl_device_size(&config));
}

int main(void)
{
    SAY(tl_stream);
    SAY(tl_line);
    SAY(tl_mux);
    SAY(tl_exchanges);
    SAY(tl_grants);
    SAY(tl_grant);
    SAY(tl_waiting_grant);
    SAY(tl_revoked);
    SAY(tl_ring);
    SAY(tl_settings);
    SAY(tl_tunnel);
    SAY(tl_messages);
    SAY(tl_gateway);
    SAY(tl_panel);
    SAY(tl_lan);
    SAY(tl_log_ring);
    SAY(tl_workspace);
    SAY(tl_device);
    say_device(4);
    say_device(16);
    return 0;
}
