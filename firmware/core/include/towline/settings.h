/* What a person sets on the device: kept in two slots, so that a power cut leaves the old settings or the new.
 *
 * A record holds tagged fields, its number in the order of writing, and a CRC. The older slot is overwritten; the
 * newest one that holds counts. A field that another version of the firmware does not know is passed over, and one
 * that is missing has its default, so a rollback keeps what both know. Nothing here is a secret's keeper: what must
 * not be read off the chip needs the key-value store to be encrypted (docs/threat-model.md).
 */
#ifndef TOWLINE_SETTINGS_H
#define TOWLINE_SETTINGS_H

#include "towline_port.h"

#define TL_SETTING_NAME_MAX 32u
#define TL_SETTING_URL_MAX 128u
#define TL_SETTING_TOKEN_MAX 128u
#define TL_KEEPALIVE_LEAST_S 2u /* docs/protocol/tunnel-v1.md allows 1 s: nothing is gained by it here */
#define TL_KEEPALIVE_MOST_S 60u
#define TL_REPORT_LEAST_S 5u /* of measured values */
#define TL_REPORT_MOST_S 3600u

/* The numbers are the fields' tags in the record: one that was given away is never used for something else. */
typedef enum {
    TL_SETTING_NAME = 1,
    TL_SETTING_SSID = 2,
    TL_SETTING_PASSWORD = 3,
    TL_SETTING_GATEWAY = 4,
    TL_SETTING_TOKEN = 5,
    TL_SETTING_SUPPORT = 6,
    TL_SETTING_LOG_LEVEL = 7,
    TL_SETTING_KEEPALIVE_S = 8,
    TL_SETTING_REPORT_S = 9
} tl_setting;

/* Texts are UTF-8 and end with NUL; "" is not set. Read it as it stands; it is changed by the calls below. */
typedef struct {
    char name[TL_SETTING_NAME_MAX + 1]; /* what its owner calls it */
    char ssid[TL_WIFI_SSID_MAX + 1];
    char password[TL_WIFI_PASSWORD_MAX + 1]; /* of the Wi-Fi; "": an open one */
    char gateway[TL_SETTING_URL_MAX + 1];    /* "": the device serves its LAN alone */
    char token[TL_SETTING_TOKEN_MAX + 1];    /* registration token; "" once the device is enrolled */
    uint16_t support;   /* 1: support sessions may open this device, where its owner consents at the gateway */
    uint16_t log_level; /* a tl_log_level */
    uint16_t keepalive_s;
    uint16_t report_s;
} tl_settings;

typedef struct {
    const tl_port_kv *kv;
    uint32_t sequence; /* of the newest record */
    uint8_t slot;      /* where it is */
} tl_settings_store;

void tl_settings_default(tl_settings *);
/* NULL, or why not (a literal, at most 40 bytes); then nothing has changed. */
const char *tl_settings_set_text(tl_settings *, tl_setting, tl_span text);
const char *tl_settings_set_number(tl_settings *, tl_setting, int64_t number);

/* The newest settings that were committed; the defaults, and false, where there are none. */
bool tl_settings_load(tl_settings_store *, const tl_port_kv *, tl_settings *);
/* Durable when it says true; false: the store failed, and a restart may find the old or the new. */
bool tl_settings_commit(tl_settings_store *, const tl_settings *);

#endif
