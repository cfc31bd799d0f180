/* Between the files of device.h. */
#ifndef TOWLINE_DEVICE_PARTS_H
#define TOWLINE_DEVICE_PARTS_H

#include "towline/device.h"
#include "towline/gateway.h"
#include "towline/lan.h"
#include "towline/log_ring.h"
#include "towline/messages.h"
#include "towline/panel.h"
#include "towline/provisioning.h"
#include "towline/ota.h"
#include "towline/settings.h"
#include "towline/tunnel.h"
#include "towline/updater.h"
#include "towline/workspace.h"

#define TL_SOFTWARE_MAX (TL_DEVICE_VERSION_MAX + 20u)

struct tl_device {
    const tl_config *config;
    const tl_port *port;
    bool stopping;
    bool connection_asked; /* the gateway was asked where messages go */
    uint8_t small_for_lan[TL_SMALL_BODY_MAX];
    uint8_t small_for_tunnel[TL_SMALL_BODY_MAX];
    char software[TL_SOFTWARE_MAX];
    uint8_t private_pem[TL_PEM_KEY_MAX + 1];
    tl_log_ring log;
    tl_settings settings;
    tl_settings_store store;
    tl_identity identity;
    tl_ota ota;
    tl_panel panel;
    tl_provisioning provisioning;
    tl_lan lan;
    tl_tunnel tunnel;
    tl_gateway gateway;
    tl_messages messages;
    tl_updater updater;
    tl_grants_scratch scratch;
    tl_workspace workspace;
    /* Behind it: streams, rings, lines. */
};

static inline uint64_t tl_device_now(const tl_device *d)
{
    return d->port->sys->now_ms(d->port->sys->with);
}

/* The first of two times. */
static inline uint64_t tl_earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* device_cloud.c: identity, gateway, messages */
bool tl_device_cloud_init(tl_device *);
/* Starts what the identity and the settings ask for. */
void tl_device_cloud_begin(tl_device *);
uint64_t tl_device_cloud_run(tl_device *);
void tl_device_apply_settings(tl_device *);

#endif
