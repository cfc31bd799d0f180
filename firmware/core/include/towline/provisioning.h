/* How a device that belongs to nobody hears of its Wi-Fi and its gateway: from a phone that knows its PIN.
 *
 * The port has the radio and the session (protocomm security 2); here is what is asked in it. It is open for ten
 * minutes after the start of a device that is not enrolled, so that a neighbour has no longer than that to guess.
 *
 * Endpoint WIFI: SSID, NUL, password; or nothing, which asks how it goes. The answer is one byte, a
 * tl_provisioning_join; none where the SSID is no SSID.
 * Endpoint TOWLINE: {"gateway": …, "token": …, "name": …}, the name may be missing; the answer is {} or {"error": …}.
 */
#ifndef TOWLINE_PROVISIONING_H
#define TOWLINE_PROVISIONING_H

#include "towline/settings.h"

#define TL_PROVISIONING_OPEN_MS 600000u
#define TL_PROVISIONING_JOIN_MS 30000u /* to join a network: its address is there in ten seconds or never */
#define TL_PROVISIONING_LINGER_MS 5000u /* after it joined: the phone asks each other second how it went */
#define TL_PROVISIONING_USER "towline"   /* of the SRP handshake; its password is the PIN */
#define TL_PROVISIONING_KEY "srp"        /* in the key-value store: salt and verifier of the PIN */

/* As network_provisioning's WifiStationState. */
typedef enum { TL_JOIN_DONE, TL_JOIN_UNDER_WAY, TL_JOIN_NOT_ASKED, TL_JOIN_FAILED } tl_provisioning_join;

typedef struct {
    const tl_port *port;
    tl_settings *settings;
    tl_settings_store *store;
    /* Settings changed, and are kept: of the Wi-Fi, of the gateway. Called behind the answer. */
    void (*changed)(void *device, bool wifi, bool gateway);
    void *device;
} tl_provisioning_parts;

typedef struct {
    tl_provisioning_parts parts;
    bool open;
    uint8_t join; /* a tl_provisioning_join */
    uint64_t close_at_ms;
    uint64_t joined_by_ms; /* while UNDER_WAY: it failed then */
    uint8_t record[TL_PROVISIONING_RECORD];
} tl_provisioning;

/* There is a new PIN: what provisioning keeps of it. The caller commits. */
bool tl_provisioning_new_pin(const tl_port *, tl_span pin);
/* Opens it where the port has a radio and a PIN's record is kept; `name`: what a phone sees. */
void tl_provisioning_open(tl_provisioning *, const tl_provisioning_parts *, tl_span name, uint64_t now_ms);
/* PROVISIONING_*, NETWORK_UP. */
void tl_provisioning_event(tl_provisioning *, const tl_event *, uint64_t now_ms);
/* What is due; when it wants to be called again. */
uint64_t tl_provisioning_run(tl_provisioning *, uint64_t now_ms);

#endif
