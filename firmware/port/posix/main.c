/* The simulator: the whole firmware as a process. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "disk.h"
#include "fetch_lws.h"
#include "first_settings.h"
#include "flash_file.h"
#include "kv_file.h"
#include "link_lws.h"
#include "mqtt_mosquitto.h"
#include "options.h"
#include "ota_files.h"
#include "provisioning_socket.h"
#include "psa_crypto.h"
#include "sys.h"
#include "towline/bytes.h"
#include "towline/device.h"
#include "version.h"
#include "web_mhd.h"

#define OUTBOX_SECTORS 16u     /* 64 KiB, as in partitions.csv */
#define GOODBYE_MS 2000u       /* for the tunnel's last word when the program ends */
#define NOT_ENROLLED 3         /* exit code of --enrolled */
#define RESET_VARIABLE "TOWLINE_DEVICE_RESET" /* tells the program that it started itself anew */

typedef struct {
    tl_options options;
    int folder;
    pthread_t signals;
    char hardware_id[TL_HARDWARE_ID_MAX + 1];
    tl_queue queue;
    tl_sys sys;
    tl_network network;
    tl_link link;
    tl_mqtt mqtt;
    tl_fetch fetch;
    tl_web web;
    tl_kv_file kv;
    tl_flash_file flash;
    tl_ota_files ota;
    tl_firmware firmware;
    tl_provisioning_socket provisioning;
    tl_port port;
    tl_config config;
} simulator;

static bool fail(const char *what, const char *why)
{
    fprintf(stderr, "towline-device: %s: %s\n", what, why);
    return false;
}

/* --- what is kept, and what of it boots --- */

static void restart(void *of)
{
    simulator *s = of;
    s->sys.port.reboot(&s->sys);
}

/* A chip's boot loader comes before all else: whatever runs, takes images or not, is what it chose. */
static bool boot(simulator *s, char **argv)
{
    const tl_options *o = &s->options;
    const char *why = tl_ota_files_boot(&s->ota, s->folder, argv);
    if (why != NULL) {
        return fail(o->data, why);
    }
    tl_ota_files_init(&s->ota, restart, s);
    return tl_firmware_read(&s->firmware, TL_SIMULATOR_HARDWARE, TL_SIMULATOR_VERSION, TL_SIMULATOR_SECURITY,
                            o->firmware_key, o->spare_key) ||
           fail("--firmware-key", "130 hexadecimal digits, as scripts/sign_firmware.py prints them");
}

static bool open_folder(simulator *s)
{
    const char *data = s->options.data;
    if (mkdir(data, 0700) != 0 && errno != EEXIST) {
        return fail(data, strerror(errno));
    }
    s->folder = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->folder < 0) {
        return fail(data, strerror(errno));
    }
    return flock(s->folder, LOCK_EX | LOCK_NB) == 0 || fail(data, "another device runs on it");
}

static bool open_stores(simulator *s)
{
    const char *why = tl_kv_file_open(&s->kv, s->folder);
    if (why == NULL) {
        why = tl_flash_file_open(&s->flash, s->folder, "outbox", OUTBOX_SECTORS);
    }
    return why == NULL || fail(s->options.data, why);
}

/* --- the port --- */

/* Where anybody reaches it: every address that this machine has now. */
static void name_by_addresses(simulator *s, uint16_t port)
{
    struct ifaddrs *all, *one;
    char text[INET_ADDRSTRLEN];
    if (getifaddrs(&all) != 0) {
        return;
    }
    for (one = all; one != NULL; one = one->ifa_next) {
        if (one->ifa_addr != NULL && one->ifa_addr->sa_family == AF_INET) {
            const struct sockaddr_in *address = (const void *)one->ifa_addr;
            tl_network_add_name(&s->network, inet_ntop(AF_INET, &address->sin_addr, text, sizeof text), port);
        }
    }
    freeifaddrs(all);
}

/* Once it listens: the port may be one that the system chose. */
static void name_on_lan(simulator *s)
{
    const struct in_addr listen = s->options.listen.sin_addr;
    const uint16_t port = tl_web_bound_port(&s->web);
    char text[INET_ADDRSTRLEN];
    for (unsigned i = 0; i < TL_LAN_NAME_OPTIONS; i++) {
        if (s->options.lan_name[i] != NULL) {
            tl_network_add_name(&s->network, s->options.lan_name[i], port);
        }
    }
    if (listen.s_addr == htonl(INADDR_ANY)) {
        name_by_addresses(s, port);
        return;
    }
    tl_network_add_name(&s->network, inet_ntop(AF_INET, &listen, text, sizeof text), port);
    if (ntohl(listen.s_addr) >> 24 == 127) {
        tl_network_add_name(&s->network, "localhost", port);
    }
}

static bool make_port(simulator *s)
{
    const char *reset = getenv(RESET_VARIABLE);
    tl_sys_init(&s->sys, s->options.time_after_s * UINT64_C(1000),
                reset != NULL ? TL_RESET_ASKED : TL_RESET_POWER);
    unsetenv(RESET_VARIABLE);
    tl_network_init(&s->network);
    tl_link_init(&s->link, &s->queue, s->options.socket_buffer);
    tl_mqtt_init(&s->mqtt, &s->queue);
    tl_fetch_init(&s->fetch, &s->queue);
    tl_provisioning_socket_init(&s->provisioning, &s->queue, &s->options.provisioning);
    tl_web_init(&s->web, &s->queue, &s->options.listen);
    s->port = (tl_port){
        .crypto = tl_psa_crypto(),
        .sys = &s->sys.port,
        .link = &s->link.port,
        .mqtt = &s->mqtt.port,
        .fetch = &s->fetch.port,
        .web = &s->web.port,
        .kv = &s->kv.port,
        .flash = &s->flash.port,
        .ota = &s->ota.port,
        .network = &s->network.port,
        .provisioning = s->options.provisioning.sin_port != 0 ? &s->provisioning.port : NULL,
    };
    return s->port.crypto != NULL || fail("libmbedcrypto", "does not start");
}

/* --- signals: a thread waits for them and tells the core --- */

static void *await_signal(void *of)
{
    simulator *s = of;
    sigset_t ends;
    int which;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    const tl_event stop = {.kind = TL_EVENT_STOP};
    while (sigwait(&ends, &which) == 0 && tl_queue_post(&s->queue, &stop)) {
    }
    return NULL;
}

static bool await_signals(simulator *s)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    tl_queue_init(&s->queue);
    signal(SIGPIPE, SIG_IGN); /* a connection that broke tells it where it is written to */
    pthread_sigmask(SIG_BLOCK, &ends, NULL); /* in all threads that come */
    return pthread_create(&s->signals, NULL, await_signal, s) == 0 || fail("a thread", strerror(errno));
}

static void end_signals(simulator *s)
{
    pthread_cancel(s->signals); /* sigwait is where it can be */
    pthread_join(s->signals, NULL);
}

static void end_port(simulator *s)
{
    tl_queue_close(&s->queue); /* nobody waits for the core any more */
    end_signals(s);
    tl_provisioning_socket_end(&s->provisioning);
    tl_web_end(&s->web);
    tl_fetch_end(&s->fetch);
    tl_mqtt_end(&s->mqtt);
    tl_link_end(&s->link);
    tl_flash_file_close(&s->flash);
    tl_kv_file_close(&s->kv);
    close(s->folder);
    tl_queue_end(&s->queue);
}

/* --- the loop --- */

/* What a greenhouse might measure: the hour's angle moves it, so two pages show the same. */
static void measure(tl_device *device, uint64_t now_ms)
{
    const int32_t second = (int32_t)(now_ms / 1000 % 120), wave = second < 60 ? second : 120 - second;
    tl_device_measured(device, "temperature_c", 2150 + wave * 3, 2);
    tl_device_measured(device, "humidity_percent", 480 - wave, 1);
    tl_device_measured(device, "light_lux", 12000 + wave * 25, 0);
    tl_device_sensor(device, "window", tl_text(wave > 30 ? "\"open\"" : "\"closed\""));
}

static uint64_t now_of(simulator *s)
{
    return s->sys.port.now_ms(&s->sys);
}

static void say_goodbye(simulator *s, tl_device *device)
{
    const uint64_t until = now_of(s) + GOODBYE_MS;
    tl_device_stop(device);
    while (!tl_device_stopped(device) && now_of(s) < until) {
        const uint32_t ms = tl_device_run(device), left = (uint32_t)(until - now_of(s));
        const tl_event event = tl_queue_wait(&s->queue, ms < left ? ms : left);
        tl_device_event(device, &event);
    }
}

static void run(simulator *s, tl_device *device)
{
    enum { MEASURE_EACH_MS = 2000 };
    uint64_t measure_at = 0;
    tl_event event = {.kind = TL_EVENT_NONE};
    while (event.kind != TL_EVENT_STOP && !s->sys.reboots) {
        if (now_of(s) >= measure_at) {
            measure(device, now_of(s));
            measure_at = now_of(s) + MEASURE_EACH_MS;
        }
        const uint32_t ms = tl_device_run(device);
        const bool waits = !s->network.announces && !s->sys.reboots;
        event = waits ? tl_queue_wait(&s->queue, ms < MEASURE_EACH_MS ? ms : MEASURE_EACH_MS)
                      : (tl_event){.kind = s->network.announces ? TL_EVENT_NETWORK_UP : TL_EVENT_NONE};
        s->network.announces = s->network.announces && event.kind != TL_EVENT_NETWORK_UP;
        tl_device_event(device, &event);
    }
    say_goodbye(s, device);
}

static int start_anew(char **argv)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setenv(RESET_VARIABLE, "asked", 1);
    (void)tl_ota_files_restart(argv); /* returns where it cannot */
    fail("the boot loader", strerror(errno));
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static simulator s; /* larger than a stack should bear */
    int code;
    if (!tl_options_read(&s.options, argc, argv, &code)) {
        return code;
    }
    if (s.options.asks_enrolled) {
        const bool opened = open_folder(&s) && open_stores(&s);
        return !opened ? EXIT_FAILURE : tl_is_enrolled(&s.kv.port) ? EXIT_SUCCESS : NOT_ENROLLED;
    }
    unsetenv("http_proxy"); /* a device has none */
    tl_disk_cut_at(s.options.cut_at);
    if (!open_folder(&s) || !boot(&s, argv) || !open_stores(&s) || !await_signals(&s) ||
        !tl_first_settings(&s.options, &s.kv.port, s.folder, s.hardware_id) || !make_port(&s)) {
        return EXIT_FAILURE;
    }
    s.config = (tl_config){
        .version = TL_SIMULATOR_VERSION,
        .hardware = TL_SIMULATOR_HARDWARE,
        .type = "esp32",
        .hardware_id = {(const uint8_t *)s.hardware_id, strlen(s.hardware_id)},
        .max_streams = s.options.streams,
        .outbox_sectors = OUTBOX_SECTORS,
        .firmware = &s.firmware,
        .steady_ms = s.options.trial_ms[0],
        .patience_ms = s.options.trial_ms[1],
    };
    void *memory = malloc(tl_device_size(&s.config));
    tl_device *device = memory != NULL ? tl_device_init(memory, &s.config, &s.port) : NULL;
    if (device != NULL) {
        name_on_lan(&s);
        printf("page on http://%s/\n", s.network.name[0]);
        fflush(stdout);
        run(&s, device);
    }
    end_port(&s);
    free(memory);
    return device == NULL ? EXIT_FAILURE : s.sys.reboots ? start_anew(argv) : EXIT_SUCCESS;
}
