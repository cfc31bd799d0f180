/* Fetches the image that a command names and hands it to the update (ota.h), which judges it. The address is trusted
 * with nothing: the image is signed, and the command says what it must be. */
#ifndef TOWLINE_UPDATER_H
#define TOWLINE_UPDATER_H

#include "towline/command.h"
#include "towline/log_ring.h"
#include "towline/ota.h"

typedef struct {
    const tl_port *port;
    tl_log_ring *log;
    tl_ota *ota;
    tl_commands *commands;
    const tl_update *wanted; /* while it is fetched */
    uint32_t number;         /* the port's, of the fetch; 0: none is under way */
    bool awaits_proof;       /* what runs is on trial, and a command waits for how that ends */
    tl_sha256 digest;        /* of all that comes */
} tl_updater;

void tl_updater_init(tl_updater *, const tl_port *, tl_log_ring *, tl_ota *, tl_commands *);
/* NULL: it is under way, and the command is told how it ends; or why not, a literal. */
const char *tl_updater_begin(tl_updater *, const tl_update *);
/* The command's time is over. */
void tl_updater_stop(tl_updater *);
/* Of the update that a command began before this start. */
tl_update_outcome tl_updater_outcome(tl_updater *);
/* FETCH_*; false: it is of another's fetch. */
bool tl_updater_event(tl_updater *, const tl_event *);
/* Tells the command once the image on trial is confirmed. */
void tl_updater_run(tl_updater *);

#endif
