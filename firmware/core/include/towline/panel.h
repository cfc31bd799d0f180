/* The device behind its page: what the page shows, out of the modules that know it, and what it changes.
 *
 * What ends connections (a restart, other Wi-Fi settings) is put off until the answer has left.
 */
#ifndef TOWLINE_PANEL_H
#define TOWLINE_PANEL_H

#include "towline/lan.h"
#include "towline/messages.h"
#include "towline/ota.h"
#include "towline/settings.h"
#include "towline/tunnel.h"
#include "towline/ui.h"

#define TL_PANEL_DELAY_MS 2000u /* an answer of a few hundred bytes leaves in it, even through a thin line */
#define TL_PANEL_DELAY_MAX_MS 10000u /* whatever else is asked for meanwhile */
#define TL_PIN_KEY "pin"        /* in the key-value store: the login's record */

/* What the device is asked to do; several at once. */
enum {
    TL_DO_RESTART = 1,
    TL_DO_RESET = 2,
    TL_DO_NETWORK = 4, /* the Wi-Fi settings changed */
    TL_DO_CLOUD = 8,   /* gateway or registration token changed */
    TL_DO_DEVICE = 16  /* name or support changed */
};

/* Pointers to what outlives it. */
typedef struct {
    const tl_port *port;
    const tl_log_ring *log;
    const tl_identity *identity;
    const tl_tunnel *tunnel;
    const tl_messages *messages;
    tl_settings *settings;
    tl_settings_store *store;
    const char *hardware, *version;
    void (*work)(void *device, unsigned what);
    void *device;
    tl_ota *ota; /* NULL: it takes no images */
} tl_panel_parts;

typedef struct {
    tl_panel_parts parts;
    tl_ui ui; /* the owner of the routes */
    tl_login login;
    uint64_t work_at_ms, work_by_ms; /* each thing that is asked for puts the first off, up to the second */
    unsigned work; /* asked for, and not done yet */
    uint8_t address[TL_LAN_NAME_MAX];
} tl_panel;

/* Makes a PIN where there is none, and tells it to the console alone. */
void tl_panel_init(tl_panel *, const tl_panel_parts *);
/* Each turn of the device's loop, before its events. True: live answers are due: tl_tunnel_wake, tl_lan_wake. */
bool tl_panel_run(tl_panel *, uint64_t now_ms);
/* When it wants to be called at the latest. */
uint64_t tl_panel_timer(const tl_panel *);

#endif
