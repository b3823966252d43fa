/* A stub of the CUDA runtime and driver. Device memory is host memory, and kernels do nothing.

   With it, the host code of torch runs without a GPU: initialization, allocator, streams, events, checks for
   determinism. Functions that are not here return success and write nothing; library.py generates them. */

#include <driver_types.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef cudaError_t Status;

/* Devices. STUB_GPUS is their number. */

static __thread int current = 0;

static int count(void) {
    const char *number = getenv("STUB_GPUS");
    return number ? atoi(number) : 1;
}

Status cudaGetDeviceCount(int *number) { *number = count(); return cudaSuccess; }
Status cudaGetDevice(int *device) { *device = current; return cudaSuccess; }
Status cudaSetDevice(int device) {
    if (device < 0 || device >= count()) return cudaErrorInvalidDevice;
    current = device;
    return cudaSuccess;
}

Status cudaDriverGetVersion(int *version) { *version = VERSION; return cudaSuccess; }
Status cudaRuntimeGetVersion(int *version) { *version = VERSION; return cudaSuccess; }

Status cudaGetDeviceProperties(struct cudaDeviceProp *of, int device) {
    memset(of, 0, sizeof *of);
    strcpy(of->name, "Stub");
    of->major = 9;
    of->totalGlobalMem = 80ull << 30;
    of->multiProcessorCount = 132;
    of->warpSize = 32;
    of->maxThreadsPerBlock = 1024;
    of->maxThreadsPerMultiProcessor = 2048;
    of->maxBlocksPerMultiProcessor = 32;
    of->sharedMemPerBlock = 48 << 10;
    of->sharedMemPerBlockOptin = 227 << 10;
    of->sharedMemPerMultiprocessor = 228 << 10;
    of->regsPerBlock = of->regsPerMultiprocessor = 65536;
    of->l2CacheSize = 50 << 20;
    of->maxGridSize[0] = 2147483647;
    of->maxGridSize[1] = of->maxGridSize[2] = 65535;
    of->maxThreadsDim[0] = of->maxThreadsDim[1] = 1024;
    of->maxThreadsDim[2] = 64;
    return cudaSuccess;
}

Status cudaGetDeviceProperties_v2(struct cudaDeviceProp *of, int device) {
    return cudaGetDeviceProperties(of, device); /* the name in CUDA 12 */
}

Status cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr of, int device) {
    *value = of == cudaDevAttrComputeCapabilityMajor ? 9 : of == cudaDevAttrComputeCapabilityMinor ? 0 : 1;
    return cudaSuccess;
}

Status cudaDeviceGetPCIBusId(char *id, int length, int device) { strncpy(id, "0", length); return cudaSuccess; }
Status cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

/* Memory. Page-locked blocks are listed, so that torch recognizes them. */

struct Block {
    char *start;
    size_t bytes;
    struct Block *next;
};

static struct Block *locked = NULL;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static Status allocate(void **pointer, size_t bytes) {
    *pointer = calloc(1, bytes ? bytes : 1);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}

Status cudaMalloc(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
Status cudaFree(void *pointer) { free(pointer); return cudaSuccess; }

Status cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    struct Block *block = malloc(sizeof *block);
    Status status = allocate(pointer, bytes);
    pthread_mutex_lock(&lock);
    *block = (struct Block){*pointer, bytes, locked};
    locked = block;
    pthread_mutex_unlock(&lock);
    return status;
}

Status cudaFreeHost(void *pointer) {
    pthread_mutex_lock(&lock);
    for (struct Block **at = &locked; *at; at = &(*at)->next) {
        struct Block *block = *at;
        if (block->start == pointer) {
            *at = block->next;
            free(block);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    free(pointer);
    return cudaSuccess;
}

Status cudaPointerGetAttributes(struct cudaPointerAttributes *of, const void *pointer) {
    memset(of, 0, sizeof *of);
    of->type = cudaMemoryTypeUnregistered;
    pthread_mutex_lock(&lock);
    for (struct Block *block = locked; block; block = block->next)
        if ((char *)pointer >= block->start && (char *)pointer < block->start + block->bytes)
            of->type = cudaMemoryTypeHost;
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

Status cudaMemGetInfo(size_t *unused, size_t *total) {
    *unused = 70ull << 30;
    *total = 80ull << 30;
    return cudaSuccess;
}

Status cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    memcpy(to, from, bytes);
    return cudaSuccess;
}

Status cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return cudaMemcpy(to, from, bytes, kind);
}

Status cudaMemset(void *to, int value, size_t bytes) { memset(to, value, bytes); return cudaSuccess; }
Status cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    return cudaMemset(to, value, bytes);
}

Status cudaDeviceGetDefaultMemPool(void **pool, int device) { *pool = &locked; return cudaSuccess; }
Status cudaMemPoolGetAttribute(void *pool, int of, void *value) { memset(value, 0, 8); return cudaSuccess; }
Status cudaGetSymbolAddress(void **pointer, const void *symbol) { return allocate(pointer, 4096); }

/* Streams: everything is done at once. */

Status cudaStreamCreate(cudaStream_t *stream) { return allocate((void **)stream, 8); }
Status cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreate(stream); }
Status cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    return cudaStreamCreate(stream);
}
Status cudaStreamDestroy(cudaStream_t stream) { free(stream); return cudaSuccess; }
Status cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return cudaSuccess; }

/* Graphs: one stream at a time is captured. A replay computes nothing. */

static cudaStream_t captured = NULL;

static Status capture_status(cudaStream_t stream, int *status, unsigned long long *id) {
    *status = captured && stream == captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    if (id) *id = 1;
    return cudaSuccess;
}

Status cudaStreamIsCapturing(cudaStream_t stream, int *status) { return capture_status(stream, status, NULL); }
Status cudaStreamGetCaptureInfo(cudaStream_t stream, int *status, unsigned long long *id) {
    return capture_status(stream, status, id);
}
Status cudaStreamGetCaptureInfo_v2(cudaStream_t stream, int *status, unsigned long long *id) {
    return capture_status(stream, status, id);
}
Status cudaStreamBeginCapture(cudaStream_t stream, int mode) { captured = stream; return cudaSuccess; }
Status cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    captured = NULL;
    return allocate((void **)graph, 8);
}
Status cudaGraphInstantiate(cudaGraphExec_t *loaded, cudaGraph_t graph) { return allocate((void **)loaded, 8); }
Status cudaGraphInstantiateWithFlags(cudaGraphExec_t *loaded, cudaGraph_t graph) {
    return allocate((void **)loaded, 8);
}
Status cudaGraphGetNodes(cudaGraph_t graph, void *nodes, size_t *number) { *number = 1; return cudaSuccess; }
Status cudaGraphDestroy(cudaGraph_t graph) { free(graph); return cudaSuccess; }
Status cudaGraphExecDestroy(cudaGraphExec_t loaded) { free(loaded); return cudaSuccess; }

/* Events. */

Status cudaEventCreate(cudaEvent_t *event) { return allocate((void **)event, 8); }
Status cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return cudaEventCreate(event); }
Status cudaEventDestroy(cudaEvent_t event) { free(event); return cudaSuccess; }
Status cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) { *ms = 1; return cudaSuccess; }

/* Kernels. */

Status cudaFuncGetAttributes(struct cudaFuncAttributes *of, const void *kernel) {
    memset(of, 0, sizeof *of);
    of->maxThreadsPerBlock = 1024;
    of->ptxVersion = of->binaryVersion = 90;
    return cudaSuccess;
}
Status cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks) { *blocks = 2; return cudaSuccess; }
Status cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 2; return cudaSuccess; }

/* Errors and the driver. */

const char *cudaGetErrorString(Status error) { return "an error of the stub"; }
const char *cudaGetErrorName(Status error) { return "cudaErrorStub"; }
Status cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return cudaSuccess; }

static int nothing(void) { return 0; }
Status cudaGetDriverEntryPoint(const char *name, void **function) { *function = nothing; return cudaSuccess; }
Status cudaGetDriverEntryPointByVersion(const char *name, void **function) {
    *function = nothing;
    return cudaSuccess;
}

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
int cuGetErrorString(int error, const char **words) { *words = "an error of the stub"; return 0; }
