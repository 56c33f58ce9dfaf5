/* A libnvidia-ml.so.1 for hosts without NVIDIA cards: answers from the text file `cards` beside it.
 *
 * Lines of a key and values; `gpu UUID` begins a card, `mig UUID PROFILE GI CI MIB` a part of the card before it.
 * The file is read again whenever it has changed, so that faults can be made while a program looks on. A card
 * that has gone from it, or that says `lost 1`, answers every question with NVML_ERROR_GPU_IS_LOST, as a card
 * that has fallen off the bus does. `xid CODE` is an event to those who wait for it, once until it has gone.
 *
 * Only what nvidia-ml-py's callers use is here. Layouts are those of the binding's ctypes structures.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10,
       LOST = 15 };
enum { CARDS = 64, PARTS = 8, LINKS = 72, PROCESSES = 64, XID = 8 };

typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 version; u64 total, reserved, free, used; } Memory2;
typedef struct { u32 gpu, memory; } Load;
typedef struct { u32 pid; u64 memory; u32 gi, ci; } Process;
typedef struct { u32 sm, copy, decoder, encoder, jpeg, ofa, slices, compute_slices; u64 mib; } Attributes;
typedef struct { void *device; u64 type, data; u32 gi, ci; } Event;

typedef struct Device {
    struct Device *card; /* of a part; NULL for a card */
    char uuid[96], name[96], pci[32], profile[32];
    int there, lost, minor, numa, major_cc, minor_cc, brand, arch, gi, ci, corrected, uncorrected, pending, failed;
    u64 memory, ecc, xid, told;
    u32 vendor_device, busy, temperature, power;
    char link[LINKS][32];
    int links, processes, parts;
    struct { char uuid[96]; u32 level; } near[CARDS];
    int nears;
    Process process[PROCESSES];
    struct Device *part[PARTS];
} Device;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Device *cards[CARDS]; /* never freed: a handle stays one, also of a card that is gone */
static int known, users;
static char driver[80] = "0", file[4096];
static int cuda;
static struct timespec seen;
static u32 order[CARDS], count; /* those in the file, in its order */

static Device *card_of(const char *uuid) {
    for (int i = 0; i < known; i++)
        if (!strcmp(cards[i]->uuid, uuid)) return cards[i];
    if (known == CARDS) return NULL;
    Device *fresh = calloc(1, sizeof *fresh);
    snprintf(fresh->uuid, sizeof fresh->uuid, "%s", uuid);
    return cards[known++] = fresh;
}

static void begin(Device *card) { /* forget what the file said before */
    Device clean = {.there = 1, .numa = -1, .told = card->told};
    memcpy(clean.uuid, card->uuid, sizeof clean.uuid);
    memcpy(clean.part, card->part, sizeof clean.part);
    *card = clean;
}

static void part_of(Device *card, const char *line) {
    if (card->parts == PARTS) return;
    Device *part = card->part[card->parts];
    if (!part) part = card->part[card->parts] = calloc(1, sizeof *part);
    card->parts++;
    part->card = card;
    sscanf(line, "%95s %31s %d %d %llu", part->uuid, part->profile, &part->gi, &part->ci, &part->memory);
    part->memory <<= 20;
    snprintf(part->name, sizeof part->name, "%.50s MIG %.31s", card->name, part->profile);
}

static void near_of(Device *card, const char *line) {
    if (card->nears < CARDS &&
        sscanf(line, "%95s %u", card->near[card->nears].uuid, &card->near[card->nears].level) == 2)
        card->nears++;
}

static void process_of(Device *card, const char *line) {
    if (card->processes == PROCESSES) return;
    Process *process = &card->process[card->processes];
    process->gi = process->ci = 0xFFFFFFFF;
    if (sscanf(line, "%u %llu", &process->pid, &process->memory) == 2) card->processes++;
}

static void fact(Device *card, const char *key, const char *line) {
    if (!strcmp(key, "name")) snprintf(card->name, sizeof card->name, "%s", line);
    else if (!strcmp(key, "pci")) sscanf(line, "%31s %x", card->pci, &card->vendor_device);
    else if (!strcmp(key, "minor")) card->minor = atoi(line);
    else if (!strcmp(key, "numa")) card->numa = atoi(line);
    else if (!strcmp(key, "brand")) card->brand = atoi(line);
    else if (!strcmp(key, "capability")) sscanf(line, "%d %d", &card->major_cc, &card->minor_cc);
    else if (!strcmp(key, "memory")) card->memory = strtoull(line, NULL, 10);
    else if (!strcmp(key, "load")) sscanf(line, "%u %u %u", &card->busy, &card->temperature, &card->power);
    else if (!strcmp(key, "lost")) card->lost = atoi(line);
    else if (!strcmp(key, "ecc")) card->ecc = strtoull(line, NULL, 10);
    else if (!strcmp(key, "rows"))
        sscanf(line, "%d %d %d %d", &card->corrected, &card->uncorrected, &card->pending, &card->failed);
    else if (!strcmp(key, "xid")) card->xid = strtoull(line, NULL, 10);
    else if (!strcmp(key, "link") && card->links < LINKS) sscanf(line, "%31s", card->link[card->links++]);
    else if (!strcmp(key, "near")) near_of(card, line);
    else if (!strcmp(key, "process")) process_of(card, line);
    else if (!strcmp(key, "mig")) part_of(card, line);
}

static void read_cards(void) {
    struct stat now;
    char line[512], key[32];
    Device *card = NULL;
    if (stat(file, &now) || (now.st_mtim.tv_sec == seen.tv_sec && now.st_mtim.tv_nsec == seen.tv_nsec)) return;
    FILE *open = fopen(file, "r");
    if (!open) return;
    seen = now.st_mtim;
    count = 0;
    for (int i = 0; i < known; i++) cards[i]->there = 0;
    while (fgets(line, sizeof line, open)) {
        int end = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%31s %n", key, &end) != 1) continue;
        const char *rest = line + end;
        if (!strcmp(key, "driver")) snprintf(driver, sizeof driver, "%.79s", rest);
        else if (!strcmp(key, "cuda")) cuda = atoi(rest);
        else if (!strcmp(key, "gpu")) {
            if ((card = card_of(rest))) {
                begin(card);
                for (int i = 0; i < known; i++)
                    if (cards[i] == card) order[count++] = i;
            }
        } else if (card) fact(card, key, rest);
    }
    fclose(open);
}

/* What every question begins with: `one` is the handle, of a card or a part; leaves the lock held if OK. */
static int ask(Device *one) {
    pthread_mutex_lock(&lock);
    int error = users ? OK : UNINITIALIZED;
    if (!error) {
        read_cards();
        Device *card = one && one->card ? one->card : one;
        if (card && (card->lost || !card->there)) error = LOST;
    }
    if (error) pthread_mutex_unlock(&lock);
    return error;
}
static int done(int result) { pthread_mutex_unlock(&lock); return result; }

#define ASK(one) do { int error = ask(one); if (error) return error; } while (0)
#define SAY(name, type, value) \
    int name(Device *one, type *out) { ASK(one); *out = (value); return done(OK); }
#define OF_CARD(name, type, value) \
    int name(Device *one, type *out) { ASK(one); if (one->card) return done(NOT_SUPPORTED); *out = (value); return done(OK); }

static int put(char *out, u32 size, const char *text) {
    if (strlen(text) >= size) return TOO_SMALL;
    strcpy(out, text);
    return OK;
}

int nvmlInitWithFlags(u32 flags) {
    Dl_info here;
    (void)flags;
    pthread_mutex_lock(&lock);
    if (!users++ && dladdr(&known, &here)) {
        const char *slash = strrchr(here.dli_fname, '/');
        int length = slash ? (int)(slash - here.dli_fname) : 1;
        snprintf(file, sizeof file, "%.*s/cards", length, slash ? here.dli_fname : ".");
    }
    read_cards();
    return done(OK);
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { pthread_mutex_lock(&lock); return done(users ? (users--, OK) : UNINITIALIZED); }

const char *nvmlErrorString(int error) {
    switch (error) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case TOO_SMALL: return "Insufficient Size";
    case TIMEOUT: return "Timeout";
    case LOST: return "GPU is lost";
    }
    return "Unknown Error";
}
int nvmlSystemGetDriverVersion(char *out, u32 size) { ASK(NULL); return done(put(out, size, driver)); }
int nvmlSystemGetNVMLVersion(char *out, u32 size) { ASK(NULL); return done(put(out, size, driver)); }
int nvmlSystemGetCudaDriverVersion(int *out) { ASK(NULL); *out = cuda; return done(OK); }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }
int nvmlSystemGetProcessName(u32 pid, char *out, u32 size) {
    char path[64], name[256] = "";
    snprintf(path, sizeof path, "/proc/%u/comm", pid);
    FILE *open = fopen(path, "r");
    if (!open) return NOT_FOUND;
    if (!fgets(name, sizeof name, open)) name[0] = 0;
    fclose(open);
    name[strcspn(name, "\n")] = 0;
    return put(out, size, name);
}

int nvmlDeviceGetCount_v2(u32 *out) { ASK(NULL); *out = count; return done(OK); }
int nvmlDeviceGetHandleByIndex_v2(u32 index, Device **out) {
    ASK(NULL);
    if (index >= count) return done(INVALID);
    Device *card = cards[order[index]];
    if (card->lost) return done(LOST);
    *out = card;
    return done(OK);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device **out) {
    ASK(NULL);
    for (u32 i = 0; i < count; i++) {
        Device *card = cards[order[i]];
        for (int p = 0; p < card->parts; p++)
            if (!strcmp(card->part[p]->uuid, uuid)) return *out = card->part[p], done(OK);
        if (!strcmp(card->uuid, uuid)) return *out = card, done(OK);
    }
    return done(NOT_FOUND);
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *address, Device **out) {
    ASK(NULL);
    u32 own[3], asked[3];
    sscanf(address, "%x:%x:%x", asked, asked + 1, asked + 2);
    for (u32 i = 0; i < count; i++) {
        Device *card = cards[order[i]];
        sscanf(card->pci, "%x:%x:%x", own, own + 1, own + 2);
        if (!memcmp(own, asked, sizeof own)) return *out = card, done(card->lost ? LOST : OK);
    }
    return done(NOT_FOUND);
}
int nvmlDeviceGetIndex(Device *one, u32 *out) {
    ASK(one);
    Device *card = one->card ? one->card : one;
    for (u32 i = 0; i < count; i++)
        if (cards[order[i]] == card) *out = i;
    for (int p = 0; one->card && p < card->parts; p++)
        if (card->part[p] == one) *out = p;
    return done(OK);
}
int nvmlDeviceGetName(Device *one, char *out, u32 size) { ASK(one); return done(put(out, size, one->name)); }
int nvmlDeviceGetUUID(Device *one, char *out, u32 size) { ASK(one); return done(put(out, size, one->uuid)); }
int nvmlDeviceGetSerial(Device *one, char *out, u32 size) { (void)one; (void)out; (void)size; return NOT_SUPPORTED; }
OF_CARD(nvmlDeviceGetMinorNumber, u32, (u32)one->minor)
OF_CARD(nvmlDeviceGetBrand, u32, (u32)one->brand)
OF_CARD(nvmlDeviceGetTemperatureOfCard, u32, one->temperature)
OF_CARD(nvmlDeviceGetPowerUsage, u32, one->power)
OF_CARD(nvmlDeviceGetEnforcedPowerLimit, u32, 400000)
OF_CARD(nvmlDeviceGetTotalEnergyConsumption, u64, (u64)one->power * (u64)time(NULL))
OF_CARD(nvmlDeviceGetComputeMode, u32, 0)
OF_CARD(nvmlDeviceGetPersistenceMode, u32, 1)
OF_CARD(nvmlDeviceGetRetiredPagesPendingStatus, u32, (u32)one->pending)
SAY(nvmlDeviceGetArchitecture, u32, (u32)(one->card ? one->card : one)->major_cc)
SAY(nvmlDeviceIsMigDeviceHandle, u32, one->card != NULL)
OF_CARD(nvmlDeviceGetMaxMigDeviceCount, u32, one->parts ? PARTS : 0)
int nvmlDeviceGetTemperature(Device *one, u32 sensor, u32 *out) {
    (void)sensor;
    return nvmlDeviceGetTemperatureOfCard(one, out);
}
int nvmlDeviceGetNumaNodeId(Device *one, int *out) {
    ASK(one);
    *out = (one->card ? one->card : one)->numa;
    return done(*out < 0 ? NOT_SUPPORTED : OK);
}
int nvmlDeviceGetCudaComputeCapability(Device *one, int *major, int *minor) {
    ASK(one);
    Device *card = one->card ? one->card : one;
    *major = card->major_cc;
    *minor = card->minor_cc;
    return done(OK);
}
static void pci(const char *address, u32 id, Pci *out) {
    memset(out, 0, sizeof *out);
    sscanf(address, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    out->id = id;
    snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", out->domain, out->bus, out->device);
    snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", out->domain & 0xFFFF, out->bus & 0xFF, out->device & 0xFF);
}
int nvmlDeviceGetPciInfo_v3(Device *one, Pci *out) {
    ASK(one);
    Device *card = one->card ? one->card : one;
    pci(card->pci, card->vendor_device, out);
    return done(OK);
}

static u64 used(Device *one) {
    u64 sum = 0;
    for (int i = 0; !one->card && i < one->processes; i++) sum += one->process[i].memory;
    return sum < one->memory ? sum : one->memory;
}
int nvmlDeviceGetMemoryInfo(Device *one, Memory *out) {
    ASK(one);
    *out = (Memory){one->memory, one->memory - used(one), used(one)};
    return done(OK);
}
int nvmlDeviceGetMemoryInfo_v2(Device *one, Memory2 *out) {
    if (out->version != 0x02000028) return INVALID;
    ASK(one);
    *out = (Memory2){out->version, one->memory, 0, one->memory - used(one), used(one)};
    return done(OK);
}
int nvmlDeviceGetUtilizationRates(Device *one, Load *out) { /* not to be had in MIG mode, as in the real one */
    ASK(one);
    if (one->card || one->parts) return done(NOT_SUPPORTED);
    *out = (Load){one->busy, one->busy / 2};
    return done(OK);
}
int nvmlDeviceGetClockInfo(Device *one, u32 kind, u32 *out) { ASK(one); *out = kind == 2 ? 1215 : 1410; return done(OK); }
int nvmlDeviceGetComputeRunningProcesses_v3(Device *one, u32 *length, Process *out) {
    ASK(one);
    u32 there = one->card ? 0 : (u32)one->processes, room = *length;
    *length = there;
    if (!there) return done(OK);
    if (!out || room < there) return done(TOO_SMALL);
    memcpy(out, one->process, there * sizeof *out);
    return done(OK);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device *one, u32 *length, Process *out) {
    (void)out;
    ASK(one);
    *length = 0;
    return done(OK);
}

int nvmlDeviceGetMigMode(Device *one, u32 *now, u32 *pending) {
    ASK(one);
    if (one->card) return done(NOT_SUPPORTED);
    *now = *pending = one->parts > 0;
    return done(OK);
}
int nvmlDeviceGetMigDeviceHandleByIndex(Device *one, u32 index, Device **out) {
    ASK(one);
    if (one->card || index >= PARTS) return done(INVALID);
    if (index >= (u32)one->parts) return done(NOT_FOUND);
    *out = one->part[index];
    return done(OK);
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *one, Device **out) {
    ASK(one);
    if (!one->card) return done(INVALID);
    *out = one->card;
    return done(OK);
}
int nvmlDeviceGetGpuInstanceId(Device *one, u32 *out) { ASK(one); *out = (u32)one->gi; return done(one->card ? OK : INVALID); }
int nvmlDeviceGetComputeInstanceId(Device *one, u32 *out) { ASK(one); *out = (u32)one->ci; return done(one->card ? OK : INVALID); }
int nvmlDeviceGetAttributes_v2(Device *one, Attributes *out) {
    ASK(one);
    if (!one->card) return done(NOT_SUPPORTED);
    u32 slices = (u32)atoi(one->profile);
    *out = (Attributes){.sm = 14 * slices, .copy = slices, .slices = slices, .compute_slices = slices, .mib = one->memory >> 20};
    return done(OK);
}

int nvmlDeviceGetTotalEccErrors(Device *one, u32 kind, u32 counter, u64 *out) { /* kind 1: uncorrected */
    (void)counter;
    ASK(one);
    *out = kind == 1 ? one->ecc : 0;
    return done(one->card ? NOT_SUPPORTED : OK);
}
int nvmlDeviceGetEccMode(Device *one, u32 *now, u32 *pending) { ASK(one); *now = *pending = 1; return done(OK); }
int nvmlDeviceGetRemappedRows(Device *one, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    ASK(one);
    *corrected = one->corrected, *uncorrected = one->uncorrected, *pending = one->pending, *failed = one->failed;
    return done(one->card ? NOT_SUPPORTED : OK);
}

int nvmlDeviceGetTopologyCommonAncestor(Device *one, Device *other, u32 *out) {
    ASK(one);
    *out = one == other ? 0 : 50;
    for (int i = 0; i < one->nears; i++)
        if (!strcmp(one->near[i].uuid, other->uuid)) *out = one->near[i].level;
    return done(OK);
}
int nvmlDeviceGetNvLinkState(Device *one, u32 link, u32 *out) {
    ASK(one);
    if (!one->links) return done(NOT_SUPPORTED);
    if (link >= (u32)one->links) return done(INVALID);
    *out = 1;
    return done(OK);
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device *one, u32 link, Pci *out) {
    ASK(one);
    if (link >= (u32)one->links) return done(INVALID);
    pci(one->link[link], 0, out);
    return done(OK);
}

/* Events. A set is a list of cards; one process seldom has more than one, so what was told is kept by card. */
typedef struct { Device *card[CARDS]; int cards; } Set;
int nvmlDeviceGetSupportedEventTypes(Device *one, u64 *out) { ASK(one); *out = XID; return done(OK); }
int nvmlEventSetCreate(Set **out) { *out = calloc(1, sizeof **out); return OK; }
int nvmlEventSetFree(Set *set) { free(set); return OK; }
int nvmlDeviceRegisterEvents(Device *one, u64 types, Set *set) {
    ASK(one);
    if (one->card || !(types & XID) || set->cards == CARDS) return done(INVALID);
    set->card[set->cards++] = one;
    return done(OK);
}
int nvmlEventSetWait_v2(Set *set, Event *out, u32 milliseconds) {
    for (u32 waited = 0;; waited += 20) {
        ASK(NULL);
        for (int i = 0; i < set->cards; i++) {
            Device *card = set->card[i];
            int fresh = card->xid != card->told;
            card->told = card->xid;
            if (fresh && card->xid) {
                *out = (Event){card, XID, card->xid, 0xFFFFFFFF, 0xFFFFFFFF};
                return done(OK);
            }
        }
        done(OK);
        if (waited >= milliseconds) return TIMEOUT;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
}
