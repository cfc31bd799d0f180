/* The configuration that the platform wants, and the one the device runs with (docs/protocol/device-v1.md,
 * section 8). Checked as a whole, stored, then in force; what is not in it is as the device's own settings say. */
#ifndef TOWLINE_CONFIGURATION_H
#define TOWLINE_CONFIGURATION_H

#include "towline/bodies.h"
#include "towline/told.h"
#include "towline_port.h"

#define TL_HEALTH_LEAST_S 1
#define TL_HEALTH_MOST_S 60
#define TL_READINGS_LEAST_S 5
#define TL_READINGS_MOST_S 3600
/* Between two that are looked at: what is told faster is not worth the flash memory. */
#define TL_CONFIG_EVERY_MS 5000u
#define TL_LOG_LEVEL_OPEN UINT8_MAX

typedef struct {
    uint64_t version; /* 0: none */
    uint8_t sha256[TL_CONFIG_SHA];
    uint8_t health_every_s; /* 0: not said */
    uint8_t log_level;      /* a tl_log_level; TL_LOG_LEVEL_OPEN: not said */
    uint16_t report_s;      /* of readings; 0: not said */
} tl_config_values;

typedef struct {
    const tl_port_kv *kv;
    tl_config_values running, told;
    const char *fault;  /* of `told` */
    const char *error;  /* why it does not run with the one that was told last; NULL: it does */
    uint64_t last_told; /* version; 0: none */
    uint64_t next_at;
    bool waits;         /* `told` was not looked at yet */
    bool owes_report;
} tl_configuration;

void tl_configuration_open(tl_configuration *, const tl_port_kv *);
/* It should run with this; of several only the last counts. */
void tl_configuration_tell(tl_configuration *, const tl_desired *);
/* Looks at what was told. True: another one is in force. */
bool tl_configuration_run(tl_configuration *, uint64_t now_ms);
/* When there is something to look at. */
uint64_t tl_configuration_due(const tl_configuration *);
void tl_configuration_report(const tl_configuration *, tl_out *out);

#endif
