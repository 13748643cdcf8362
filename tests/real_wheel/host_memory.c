/* The few CANN functions that need a real result: device memory is host memory, streams and events are
 * handles that are always complete. All other functions that torch_npu calls are generated and return 0, which
 * is "success" in acl (stubs.py). New memory is filled with 0xFF, NaN in every floating type, because no kernel
 * computes anything here and results must show it.
 *
 * STUB_NPU_COUNT   number of cards (0)
 * STUB_SOC         their name (Ascend910B3)
 * STUB_MEMORY_MIB  memory of all cards together (2048); more is refused with the acl code for it
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DONE = 0, OUT_OF_MEMORY = 207001, INVALID_DEVICE = 107001, RECORDED = 1 };

/* ------------------------------------------------------------------ which operators were launched */
/* The names since the last stub_forget(), one per line. One thread at a time: use TASK_QUEUE_ENABLE=0. */
static char calls[1 << 20];
static size_t calls_end;

void stub_note(const char *kind, const char *name)
{
    int more = snprintf(calls + calls_end, sizeof calls - calls_end, "%s%s\n", kind, name);
    if (more > 0 && calls_end + more < sizeof calls) calls_end += more;
}
const char *stub_calls(void) { return calls; }
void stub_forget(void) { calls_end = 0; calls[0] = 0; }

/* The legacy route: the operator is given by name, and CANN compiles it for the present shapes. */
int aclopCompileAndExecute(const char *name) { stub_note("aclop:", name); return DONE; }
int aclopCompileAndExecuteV2(const char *name) { stub_note("aclop:", name); return DONE; }

/* ------------------------------------------------------------------ cards */
static _Thread_local int32_t current;

int aclrtGetDeviceCount(uint32_t *count)
{
    const char *given = getenv("STUB_NPU_COUNT");
    *count = given ? (uint32_t)atoi(given) : 0;
    return DONE;
}
int aclrtSetDevice(int32_t device)
{
    uint32_t count;
    aclrtGetDeviceCount(&count);
    if (device < 0 || (uint32_t)device >= count) return INVALID_DEVICE;
    current = device;
    return DONE;
}
int aclrtGetDevice(int32_t *device) { *device = current; return DONE; }
const char *aclrtGetSocName(void) { return getenv("STUB_SOC") ? getenv("STUB_SOC") : "Ascend910B3"; }
const char *aclGetRecentErrMsg(void) { return ""; }
int aclsysGetCANNVersion(int package, void *version) { (void)package; (void)version; return 1; } /* not available */
size_t aclGetCompileoptSize(int option) { (void)option; return 256; }
int aclrtGetCurrentContext(void **context) { *context = &calls; return DONE; }
int aclrtCreateContext(void **context, int32_t device) { (void)device; *context = &calls; return DONE; }

/* ------------------------------------------------------------------ memory */
static size_t used;

static size_t whole(void)
{
    const char *given = getenv("STUB_MEMORY_MIB");
    return (given ? (size_t)atol(given) : 2048) << 20;
}
static int take(void **memory, size_t size)
{
    if (size > whole() || used + size > whole()) return OUT_OF_MEMORY;
    size_t padded = (size / 512 + 2) * 512; /* kernels may access slightly more than a tensor */
    if (!(*memory = aligned_alloc(512, padded))) return OUT_OF_MEMORY;
    __atomic_add_fetch(&used, malloc_usable_size(*memory), __ATOMIC_RELAXED);
    memset(*memory, 0xFF, padded);
    return DONE;
}
static int give_back(void *memory)
{
    __atomic_sub_fetch(&used, memory ? malloc_usable_size(memory) : 0, __ATOMIC_RELAXED);
    free(memory);
    return DONE;
}
int aclrtMalloc(void **p, size_t size, int policy) { (void)policy; return take(p, size); }
int aclrtMallocAlign32(void **p, size_t size, int policy) { (void)policy; return take(p, size); }
int aclrtMallocHost(void **p, size_t size) { return take(p, size); }
int aclrtMallocHostWithCfg(void **p, uint64_t size, void *config) { (void)config; return take(p, size); }
int aclrtFree(void *p) { return give_back(p); }
int aclrtFreeHost(void *p) { return give_back(p); }
int aclrtMemcpy(void *to, size_t room, const void *from, size_t size, int kind)
{
    (void)kind;
    if (size > room) return INVALID_DEVICE;
    memmove(to, from, size);
    return DONE;
}
int aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t size, int kind, void *stream)
{
    (void)stream;
    return aclrtMemcpy(to, room, from, size, kind);
}
int aclrtMemcpyAsyncWithCondition(void *to, size_t room, const void *from, size_t size, int kind, void *stream)
{
    (void)stream;
    return aclrtMemcpy(to, room, from, size, kind);
}
int aclrtMemset(void *p, size_t room, int32_t value, size_t size) { (void)room; memset(p, value, size); return DONE; }
int aclrtMemsetAsync(void *p, size_t room, int32_t value, size_t size, void *stream)
{
    (void)stream;
    return aclrtMemset(p, room, value, size);
}
int aclrtGetMemInfo(int kind, size_t *unused, size_t *total)
{
    (void)kind;
    *total = whole();
    *unused = used < *total ? *total - used : 0;
    return DONE;
}

/* ------------------------------------------------------------------ streams and events */
static int ticket(void **handle) { *handle = malloc(64); return *handle ? DONE : OUT_OF_MEMORY; }
int aclrtCreateStream(void **s) { return ticket(s); }
int aclrtCreateStreamWithConfig(void **s, uint32_t priority, uint32_t flag) { (void)priority; (void)flag; return ticket(s); }
int aclrtCreateEvent(void **e) { return ticket(e); }
int aclrtCreateEventWithFlag(void **e, uint32_t flag) { (void)flag; return ticket(e); }
int aclrtCreateEventExWithFlag(void **e, uint32_t flag) { (void)flag; return ticket(e); }
int aclrtDestroyEvent(void *e) { free(e); return DONE; }
int aclrtDestroyStream(void *s) { free(s); return DONE; }
int aclrtStreamQuery(void *s, int *status) { (void)s; *status = 0; return DONE; }
int aclrtQueryEvent(void *e, int *status) { (void)e; *status = 0; return DONE; }
int aclrtQueryEventStatus(void *e, int *status) { (void)e; *status = RECORDED; return DONE; }
int aclrtQueryEventWaitStatus(void *e, int *status) { (void)e; *status = 0; return DONE; }
int aclrtEventElapsedTime(float *ms, void *from, void *to) { (void)from; (void)to; *ms = 0; return DONE; } /* no time is simulated */
int aclrtStreamGetId(void *s, int32_t *id) { (void)s; *id = 0; return DONE; }
