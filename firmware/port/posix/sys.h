/* The port's clock, log and restarts on a host. */
#ifndef TOWLINE_POSIX_SYS_H
#define TOWLINE_POSIX_SYS_H

#include "towline_port.h"

typedef struct {
    tl_port_sys port;
    uint64_t started_ms;
    uint64_t time_from_ms; /* since the start: before it the time is not known, as before a chip has heard of SNTP */
    uint32_t least_free;
    tl_reset_reason reason;
    bool reboots; /* it was asked for: the loop looks */
} tl_sys;

void tl_sys_init(tl_sys *, uint64_t time_from_ms, tl_reset_reason);

#define TL_NETWORK_NAMES 4u /* as many as the core asks for */

/* The host's network is there from the start; Wi-Fi is a setting that somebody keeps, and nothing more. */
typedef struct {
    tl_port_network port;
    bool announces; /* that it is up: the loop tells it */
    char name[TL_NETWORK_NAMES][TL_ADDRESS_TEXT_MAX + 8]; /* with the port where it is not 80 */
    size_t names;
} tl_network;

void tl_network_init(tl_network *);
/* What finds no room is left out. */
void tl_network_add_name(tl_network *, const char *host, uint16_t port);

#endif
