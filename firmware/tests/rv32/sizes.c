/* What the core's own structures take on the target, a line each: "name bytes". tests/firmware reads it. */
#include <stdio.h>

#include "towline/exchange.h"
#include "towline/flash_ring.h"
#include "towline/grants.h"
#include "towline/mux.h"
#include "towline/revoked.h"
#include "towline/settings.h"

#define SAY(type) printf(#type " %u\n", (unsigned)sizeof(type))

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
    return 0;
}
