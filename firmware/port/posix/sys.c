#include "sys.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>

static uint64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static uint64_t now_ms(void *with)
{
    const tl_sys *sys = with;
    return monotonic_ms() - sys->started_ms + 1;
}

static int64_t wall_s(void *with)
{
    const tl_sys *sys = with;
    return now_ms(with) > sys->time_from_ms ? (int64_t)time(NULL) : -1;
}

static void log_line(void *with, tl_log_level level, tl_span line)
{
    static const char letters[] = "EWID";
    const uint64_t at = now_ms(with);
    fprintf(stderr, "%c %llu.%03u %.*s\n", letters[level], (unsigned long long)(at / 1000), (unsigned)(at % 1000),
            (int)line.n, (const char *)line.at);
}

/* What the host has; a chip has a thousandth of it. */
static void memory(void *with, tl_memory *found)
{
    tl_sys *sys = with;
    struct sysinfo info;
    sysinfo(&info);
    const uint64_t free_now = (uint64_t)info.freeram * info.mem_unit;
    found->available = free_now < UINT32_MAX ? (uint32_t)free_now : UINT32_MAX;
    sys->least_free = found->available < sys->least_free ? found->available : sys->least_free;
    found->least = sys->least_free;
    found->largest = found->available;
}

static tl_reset_reason reset_reason(void *with)
{
    return ((tl_sys *)with)->reason;
}

static void reboot(void *with)
{
    ((tl_sys *)with)->reboots = true;
}

void tl_sys_init(tl_sys *sys, uint64_t time_from_ms, tl_reset_reason reason)
{
    memset(sys, 0, sizeof *sys);
    sys->started_ms = monotonic_ms();
    sys->time_from_ms = time_from_ms;
    sys->least_free = UINT32_MAX;
    sys->reason = reason;
    sys->port = (tl_port_sys){sys, now_ms, wall_s, log_line, memory, reset_reason, reboot};
}

/* --- network --- */

static bool apply(void *with, tl_span ssid, tl_span password)
{
    (void)ssid;
    (void)password;
    ((tl_network *)with)->announces = true;
    return true;
}

static bool rssi(void *with, int8_t *dbm)
{
    (void)with;
    (void)dbm;
    return false;
}

static bool name(void *with, size_t index, tl_out *host)
{
    const tl_network *network = with;
    if (index >= network->names) {
        return false;
    }
    const size_t n = strlen(network->name[index]);
    if (n > host->cap - host->n) {
        return false;
    }
    memcpy(host->at + host->n, network->name[index], n);
    host->n += n;
    return true;
}

void tl_network_init(tl_network *network)
{
    memset(network, 0, sizeof *network);
    network->port = (tl_port_network){network, apply, rssi, name};
}

void tl_network_add_name(tl_network *network, const char *host, uint16_t port)
{
    if (network->names == TL_NETWORK_NAMES) {
        return;
    }
    char *to = network->name[network->names];
    const size_t room = sizeof network->name[0];
    const int n = port == 80 ? snprintf(to, room, "%s", host) : snprintf(to, room, "%s:%u", host, port);
    network->names += n > 0 && (size_t)n < room;
}
