#include "towline/command.h"

#include <string.h>

#include "towline/bytes.h"
#include "towline/sending.h"

/* The ledger holds these: a number is never used for another. */
enum { NOTHING, PING, LOG_LEVEL, IDENTIFY, REBOOT, UPDATE, WHATS };

static const char *const names[] = {"ping", "log_level", "identify", "reboot", "update"};
static const char *const levels[] = {"error", "warning", "info", "debug"};

static const char interrupted[] = "interrupted", bad_parameters[] = "bad_params";

static int64_t wall_ms(const tl_commands *c)
{
    const int64_t wall_s = c->sys->wall_s(c->sys->with);
    return wall_s < 0 ? -1 : wall_s * 1000;
}

static void answer(tl_commands *c, const uint8_t *id, tl_ack ack)
{
    uint8_t at = 0;
    while (at < c->ack_count && (c->acks[at].stage != ack.stage || memcmp(c->acks[at].id, id, TL_UUID) != 0)) {
        at++;
    }
    if (at == TL_ACKS) {
        tl_commands_ack_said(c); /* the oldest goes */
        at--;
    }
    if (at == c->ack_count) {
        c->ack_count++;
    }
    memcpy(ack.id, id, TL_UUID);
    ack.at_ms = wall_ms(c);
    c->acks[at] = ack;
}

static void received(tl_commands *c, const uint8_t *id)
{
    answer(c, id, (tl_ack){.stage = TL_STAGE_RECEIVED, .slot = TL_NO_SLOT, .was = UINT8_MAX});
}

/* Of one in the ledger that has ended. */
static void say_again(tl_commands *c, uint8_t slot)
{
    const tl_ledger_entry *entry = &c->ledger->entries[slot];
    const bool ok = entry->state == TL_LEDGER_DONE;
    answer(c, entry->id, (tl_ack){.stage = TL_STAGE_DONE, .ok = ok, .slot = ok ? TL_NO_SLOT : slot, .was = UINT8_MAX});
}

static void refused(tl_commands *c, const uint8_t *id, const char *error)
{
    answer(c, id, (tl_ack){.stage = TL_STAGE_REFUSED, .error = error, .slot = TL_NO_SLOT, .was = UINT8_MAX});
}

static void refuse(tl_commands *c, const uint8_t *id, const char *error)
{
    memcpy(c->refused[c->refused_next].id, id, TL_UUID);
    c->refused[c->refused_next].error = error;
    c->refused_next = (uint8_t)((c->refused_next + 1) % TL_REFUSED_IDS);
    refused(c, id, error);
}

/* --- reading what is asked --- */

/* The value of a text among `texts`; -1: none of them. */
static int one_of(const tl_json *text, const char *const *texts, int count)
{
    while (--count >= 0 && !tl_json_says(text, tl_text(texts[count]))) {
    }
    return count;
}

static bool read_text(const tl_json *params, const char *name, uint8_t *to, size_t most, uint8_t *n)
{
    tl_json text;
    tl_out out = {to, 0, most, false};
    const bool found = tl_json_member(params, name, &text) && tl_json_unescape(&text, &out) && out.n > 0;
    *n = (uint8_t)out.n;
    return found;
}

static bool read_update(const tl_json *params, tl_update *update)
{
    uint8_t hex[64], n;
    tl_json size;
    int64_t bytes;
    if (!read_text(params, "url", update->url, sizeof update->url, &update->url_n) ||
        !read_text(params, "version", update->version, sizeof update->version, &update->version_n) ||
        !read_text(params, "sha256", hex, sizeof hex, &n) || n != sizeof hex ||
        !tl_json_member(params, "size", &size) || !tl_json_whole(&size, 1, UINT32_MAX, &bytes)) {
        return false;
    }
    update->size = (uint32_t)bytes;
    for (size_t i = 0; i < sizeof update->sha256; i++) {
        if (!tl_hex(&hex[2 * i], &update->sha256[i])) {
            return false;
        }
    }
    return true;
}

/* Exactly so many members: what a command is not declared to take is refused. */
static bool has_members(const tl_json *params, size_t count)
{
    tl_span rest = params->text;
    tl_json name, value;
    size_t found = 0;
    while (tl_json_next_member(&rest, &name, &value)) {
        found++;
    }
    return found == count;
}

/* NULL, or why it is refused. */
static const char *read_job(tl_commands *c, const tl_command *command, tl_job *job)
{
    static const uint8_t members[] = {0, 0, 1, 0, 0, 4};
    tl_json level;
    size_t count;
    (void)tl_commands_names(c, &count);
    job->what = (uint8_t)(one_of(&command->name, names, (int)count) + 1);
    if (job->what == NOTHING) {
        return "unsupported";
    }
    if (!has_members(&command->params, members[job->what])) {
        return bad_parameters;
    }
    if (job->what == LOG_LEVEL) {
        const int found = tl_json_member(&command->params, "level", &level) ? one_of(&level, levels, 4) : -1;
        job->level = (uint8_t)found;
        return found < 0 ? bad_parameters : NULL;
    }
    if (job->what == UPDATE) {
        if (c->update.size != 0) {
            return "busy"; /* one waits or runs: there is room for one address */
        }
        if (!read_update(&command->params, &c->update)) {
            c->update.size = 0;
            return bad_parameters;
        }
    }
    return NULL;
}

static void line_up(tl_commands *c, const tl_command *command, uint64_t now_ms)
{
    tl_job *job = &c->queue[c->waiting];
    const char *why = "busy";
    if (c->waiting < TL_COMMANDS_WAITING) {
        why = read_job(c, command, job);
    }
    if (why != NULL) {
        refuse(c, command->id, why);
        return;
    }
    memcpy(job->id, command->id, TL_UUID);
    job->begin_by = now_ms + command->ttl_ms;
    job->timeout_ms = command->timeout_ms;
    c->waiting++;
}

void tl_commands_offer(tl_commands *c, const tl_command *command, uint64_t now_ms)
{
    const uint8_t slot = tl_ledger_find(c->ledger, command->id);
    if (slot != TL_NO_SLOT && c->ledger->entries[slot].state != TL_LEDGER_BEGUN) {
        say_again(c, slot);
        return;
    }
    if (slot != TL_NO_SLOT) {
        received(c, command->id);
        return;
    }
    for (size_t i = 0; i < TL_REFUSED_IDS; i++) {
        if (c->refused[i].error != NULL && memcmp(c->refused[i].id, command->id, TL_UUID) == 0) {
            refused(c, command->id, c->refused[i].error);
            return;
        }
    }
    for (uint8_t i = 0; i < c->waiting; i++) {
        if (memcmp(c->queue[i].id, command->id, TL_UUID) == 0) {
            return;
        }
    }
    line_up(c, command, now_ms);
}

/* --- doing it --- */

static void end(tl_commands *c, const char *error)
{
    const uint8_t slot = c->slot;
    if (c->now.what == UPDATE) {
        c->update.size = 0;
    }
    c->now.what = NOTHING;
    c->waits_for_update = false;
    c->reboot_at = c->deadline = TL_NEVER_DUE;
    (void)tl_ledger_end(c->ledger, slot, error);
    answer(c, c->ledger->entries[slot].id,
           (tl_ack){.stage = TL_STAGE_DONE, .ok = error == NULL, .error = error, .slot = TL_NO_SLOT, .was = UINT8_MAX});
}

static void do_harmless(tl_commands *c, const tl_job *job)
{
    tl_ack ack = {.stage = TL_STAGE_DONE, .ok = true, .slot = TL_NO_SLOT, .was = UINT8_MAX};
    received(c, job->id);
    if (job->what == LOG_LEVEL) {
        ack.was = (uint8_t)c->work->log_level(c->device, (tl_log_level)job->level);
    } else if (job->what == IDENTIFY) {
        c->work->identify(c->device);
    }
    answer(c, job->id, ack);
}

static void begin(tl_commands *c, const tl_job *job, uint64_t now_ms)
{
    if (now_ms > job->begin_by) {
        if (job->what == UPDATE) {
            c->update.size = 0;
        }
        refuse(c, job->id, "expired");
        return;
    }
    if (job->what < REBOOT) {
        do_harmless(c, job);
        return;
    }
    c->slot = tl_ledger_take(c->ledger, job->id, job->what);
    if (c->slot == TL_NO_SLOT) {
        c->update.size = job->what == UPDATE ? 0 : c->update.size;
        refuse(c, job->id, "not_stored");
        return;
    }
    c->now = *job;
    received(c, job->id);
    c->deadline = now_ms + job->timeout_ms;
    if (job->what == REBOOT) {
        c->reboot_at = now_ms + TL_REBOOT_AFTER_MS;
        return;
    }
    const char *why = c->work->update(c->device, &c->update);
    if (why != NULL) {
        end(c, why);
    }
    c->waits_for_update = why == NULL;
}

static void give_up(tl_commands *c)
{
    if (c->waits_for_update) {
        c->work->stop_update(c->device);
    }
    end(c, c->waits_for_update ? "timed_out" : "the device did not restart");
}

uint64_t tl_commands_run(tl_commands *c, uint64_t now_ms)
{
    if (now_ms >= c->reboot_at) {
        c->reboot_at = TL_NEVER_DUE;
        c->deadline = now_ms + 2 * TL_REBOOT_AFTER_MS;
        c->sys->reboot(c->sys->with);
    } else if (now_ms >= c->deadline && c->reboot_at == TL_NEVER_DUE) {
        give_up(c);
    }
    while (c->now.what == NOTHING && c->waiting > 0) {
        const tl_job job = c->queue[0];
        memmove(&c->queue[0], &c->queue[1], --c->waiting * sizeof job);
        begin(c, &job, now_ms);
    }
    return c->reboot_at < c->deadline ? c->reboot_at : c->deadline;
}

void tl_commands_update_over(tl_commands *c, const char *error)
{
    if (c->waits_for_update) {
        end(c, error);
    }
}

/* --- at a start --- */

static void end_cut_off(tl_commands *c, uint8_t slot)
{
    const tl_ledger_entry *entry = &c->ledger->entries[slot];
    const char *error = entry->what == REBOOT ? NULL : interrupted;
    c->slot = slot;
    if (entry->what == UPDATE && c->work->update != NULL) {
        switch (c->work->updated(c->device)) {
        case TL_UPDATE_ON_TRIAL: /* whoever confirms it, or goes back, ends it */
            memcpy(c->now.id, entry->id, TL_UUID);
            c->now.what = UPDATE;
            c->update.size = 1;
            c->waits_for_update = true;
            return;
        case TL_UPDATE_RUNS: error = NULL; break;
        case TL_UPDATE_ROLLED_BACK: error = "rolled_back"; break;
        default: break;
        }
    }
    end(c, error);
}

void tl_commands_open(tl_commands *c, tl_ledger *ledger, const tl_port_sys *sys, const tl_command_work *work,
                      void *device)
{
    memset(c, 0, sizeof *c);
    c->ledger = ledger;
    c->sys = sys;
    c->work = work;
    c->device = device;
    c->reboot_at = c->deadline = TL_NEVER_DUE;
    for (uint8_t i = 0; i < TL_LEDGER_ENTRIES; i++) {
        if (ledger->entries[i].state == TL_LEDGER_BEGUN) {
            end_cut_off(c, i);
        }
    }
}

const char *const *tl_commands_names(const tl_commands *c, size_t *count)
{
    *count = sizeof names / sizeof names[0] - (c->work->update == NULL);
    return names;
}

/* --- answers --- */

bool tl_commands_ack(const tl_commands *c, tl_ack_body *body, tl_out *text)
{
    if (c->ack_count == 0) {
        return false;
    }
    const tl_ack *ack = &c->acks[0];
    *body = (tl_ack_body){.command = ack->id, .stage = (tl_stage)ack->stage, .at_ms = ack->at_ms, .ok = ack->ok};
    if (ack->was != UINT8_MAX) {
        tl_put_text(text, "{\"was\":\"");
        tl_put_text(text, levels[ack->was]);
        tl_put_text(text, "\"}");
        body->result = (tl_span){text->at, text->n};
    } else if (ack->error != NULL) {
        body->error = tl_text(ack->error);
    } else if (ack->slot != TL_NO_SLOT) {
        tl_ledger_put_error(c->ledger, ack->slot, text);
        body->error = (tl_span){text->at, text->n};
    }
    return true;
}

void tl_commands_ack_said(tl_commands *c)
{
    memmove(&c->acks[0], &c->acks[1], --c->ack_count * sizeof c->acks[0]);
}
