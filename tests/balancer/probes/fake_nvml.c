/* NVML as a test wants it: what it answers stands in the file that FAKE_NVML_STATE names.

   One "key value" in a line; the file is read again whenever it changes. A value "!N" makes the call
   fail with nvmlReturn_t N. Keys: init, kernel (the module's version; the library's is
   LIBRARY_VERSION), count, hang, event ("serial gpu xid"), and for each GPU I "I.uuid", "I.util"
   (percent), "I.power" (mW), "I.temperature", "I.reasons", "I.used", "I.free", "I.recovery",
   "I.processes" ("pid:bytes,pid:na"), "I.mig" (devices), and "I.all" for every call on it. A MIG
   device M of GPU I has the keys "I/M.uuid" and so on.

   With -DOLD_DRIVER the functions of newer drivers are missing. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef LIBRARY_VERSION
#define LIBRARY_VERSION 1
#endif

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7,
       TIMEOUT = 10, MISMATCH = 18 };
enum { GPUS = 16, MIGS = 8, VALUE = 256 };

typedef unsigned int uint;
typedef unsigned long long ull;
struct device { int gpu, mig; };
struct utilisation { uint gpu, memory; };
struct memory { ull total, free, used; };
struct process { uint pid; ull used; uint gpu_instance, compute_instance; };
struct event { struct device *device; ull type, data; uint gpu_instance, compute_instance; };
struct temperature { uint version, sensor; int value; };
struct field { uint id, scope; long long timestamp, latency; uint type, result;
               union { double d; uint u; ull ull; } value; };

static struct device whole[GPUS], part[GPUS][MIGS];
static int opened, registered[GPUS];
static long delivered;

static char text[65536];
static struct stat last;

static void refresh(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat now;
    if (!path || stat(path, &now)) { text[0] = 0; return; }
    if (now.st_ino == last.st_ino && now.st_size == last.st_size &&
        now.st_mtim.tv_sec == last.st_mtim.tv_sec && now.st_mtim.tv_nsec == last.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    text[0] = '\n';
    text[1 + fread(text + 1, 1, sizeof text - 2, file)] = 0;
    fclose(file);
    last = now;
}

/* The value of a key: 0, or the error that stands there, or UNSUPPORTED if nothing does. */
static int look(const char *key, char *value) {
    char wanted[64];
    refresh();
    snprintf(wanted, sizeof wanted, "\n%s ", key);
    char *found = strstr(text, wanted);
    if (!found) return UNSUPPORTED;
    found += strlen(wanted);
    size_t length = strcspn(found, "\n");
    if (length >= VALUE) length = VALUE - 1;
    memcpy(value, found, length);
    value[length] = 0;
    return value[0] == '!' ? atoi(value + 1) : OK;
}

static ull number(const char *key, ull otherwise) {
    char value[VALUE];
    return look(key, value) == OK ? strtoull(value, 0, 0) : otherwise;
}

static int of_device(struct device *device, const char *name, char *value) {
    char key[64], all[VALUE];
    if (!opened) return UNINITIALIZED;
    snprintf(key, sizeof key, "%d.all", device->gpu);
    int failed = look(key, all);
    if (failed != OK && failed != UNSUPPORTED) return failed;
    if (device->mig < 0) snprintf(key, sizeof key, "%d.%s", device->gpu, name);
    else snprintf(key, sizeof key, "%d/%d.%s", device->gpu, device->mig, name);
    return look(key, value);
}

static int as_number(struct device *device, const char *name, ull *out) {
    char value[VALUE];
    int failed = of_device(device, name, value);
    if (failed == OK) *out = strtoull(value, 0, 0);
    return failed;
}

int nvmlInitWithFlags(uint flags) {
    char value[VALUE];
    (void)flags;
    int failed = look("init", value);
    if (failed != OK && failed != UNSUPPORTED) return failed;
    if (number("kernel", LIBRARY_VERSION) != LIBRARY_VERSION) return MISMATCH;
    for (int gpu = 0; gpu < GPUS; gpu++) {
        whole[gpu] = (struct device){gpu, -1};
        for (int mig = 0; mig < MIGS; mig++) part[gpu][mig] = (struct device){gpu, mig};
    }
    opened = 1;
    return OK;
}

int nvmlShutdown(void) {
    if (!opened) return UNINITIALIZED;
    opened = 0;
    memset(registered, 0, sizeof registered);
    return OK;
}

const char *nvmlErrorString(int result) { (void)result; return "as the test says"; }

int nvmlDeviceGetCount_v2(uint *count) {
    if (!opened) return UNINITIALIZED;
    *count = (uint)number("count", 0);
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(uint index, struct device **device) {
    char value[VALUE];
    if (index >= GPUS) return INVALID;
    int failed = of_device(&whole[index], "handle", value);
    if (failed != OK && failed != UNSUPPORTED) return failed;
    *device = &whole[index];
    return OK;
}

int nvmlDeviceGetUUID(struct device *device, char *uuid, uint length) {
    char value[VALUE];
    int failed = of_device(device, "uuid", value);
    if (failed == OK) snprintf(uuid, length, "%s", value);
    return failed;
}

int nvmlDeviceGetUtilizationRates(struct device *device, struct utilisation *out) {
    ull value;
    while (number("hang", 0)) usleep(2000);
    int failed = as_number(device, "util", &value);
    if (failed == OK) *out = (struct utilisation){(uint)value, 0};
    return failed;
}

int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *out) {
    ull used, free_;
    int failed = as_number(device, "used", &used);
    if (failed == OK) failed = as_number(device, "free", &free_);
    if (failed == OK) *out = (struct memory){used + free_, free_, used};
    return failed;
}

int nvmlDeviceGetPowerUsage(struct device *device, uint *out) {
    ull value;
    int failed = as_number(device, "power", &value);
    if (failed == OK) *out = (uint)value;
    return failed;
}

int nvmlDeviceGetTemperature(struct device *device, uint sensor, uint *out) {
    ull value;
    (void)sensor;
    int failed = as_number(device, "temperature", &value);
    if (failed == OK) *out = (uint)value;
    return failed;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct device *device, ull *out) {
    return as_number(device, "reasons", out);
}

static int processes(struct device *device, uint *count, struct process *out) {
    char value[VALUE], *rest = value;
    uint found = 0;
    int failed = of_device(device, "processes", value);
    if (failed != OK) return failed;
    for (char *item; (item = strsep(&rest, ",")) != 0;) {
        char *colon = strchr(item, ':');
        if (!colon) continue;
        ull used = strcmp(colon + 1, "na") ? strtoull(colon + 1, 0, 0) : ~0ULL;
        if (out && found < *count)
            out[found] = (struct process){(uint)atoi(item), used, ~0U, ~0U};
        found++;
    }
    failed = found > *count ? TOO_SMALL : OK;
    *count = found;
    return failed;
}

int nvmlDeviceGetComputeRunningProcesses_v2(struct device *d, uint *count, struct process *out) {
    return processes(d, count, out);
}

#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(struct device *d, uint *count, struct process *out) {
    return processes(d, count, out);
}

int nvmlDeviceGetCurrentClocksEventReasons(struct device *device, ull *out) {
    return as_number(device, "reasons", out);
}

int nvmlDeviceGetTemperatureV(struct device *device, struct temperature *out) {
    ull value;
    int failed = as_number(device, "temperature", &value);
    if (failed == OK) out->value = (int)value;
    return failed;
}
#endif

int nvmlDeviceGetFieldValues(struct device *device, int count, struct field *fields) {
    for (int i = 0; i < count; i++) {
        ull value = 0;
        fields[i].result = fields[i].id == 230 ? as_number(device, "recovery", &value) : INVALID;
        fields[i].value.u = (uint)value;
    }
    return opened ? OK : UNINITIALIZED;
}

int nvmlDeviceGetMigMode(struct device *device, uint *current, uint *pending) {
    ull value;
    int failed = as_number(device, "mig", &value);
    if (failed == OK) *current = *pending = value > 0;
    return failed;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *device, uint *count) {
    (void)device;
    *count = MIGS;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, uint index, struct device **out) {
    ull value = 0;
    int failed = as_number(device, "mig", &value);
    if (failed != OK) return failed;
    if (index >= value) return NOT_FOUND;
    *out = &part[device->gpu][index];
    return OK;
}

int nvmlEventSetCreate(void **set) {
    *set = &delivered;
    return OK;
}

int nvmlEventSetFree(void *set) {
    (void)set;
    memset(registered, 0, sizeof registered);
    return OK;
}

int nvmlDeviceGetSupportedEventTypes(struct device *device, ull *types) {
    (void)device;
    *types = number("events", 0x1f);
    return OK;
}

int nvmlDeviceRegisterEvents(struct device *device, ull types, void *set) {
    (void)types; (void)set;
    registered[device->gpu] = 1;
    return OK;
}

int nvmlEventSetWait_v2(void *set, struct event *event, uint timeout_ms) {
    char value[VALUE];
    long serial;
    int gpu, xid;
    (void)set;
    if (timeout_ms) usleep(timeout_ms * 1000);
    if (look("event", value) != OK || sscanf(value, "%ld %d %d", &serial, &gpu, &xid) != 3)
        return TIMEOUT;
    if (serial <= delivered || !registered[gpu]) return TIMEOUT;
    delivered = serial;
    *event = (struct event){&whole[gpu], 8, (ull)xid, ~0U, ~0U};
    return OK;
}
