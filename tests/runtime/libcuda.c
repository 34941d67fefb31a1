// A fake driver for the real pycuda (tests/runtime/test_real_pycuda.py). The "GPU's" memory is host memory. Work on a
// stream runs when somebody waits for it. It returns the errors that framecast could cause: calls without a
// context, unsafe calls in a capture, the use of freed memory. It counts live objects and calls for the test.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, ILLEGAL_STATE = 401, BAD_HANDLE = 400, ILLEGAL_ADDRESS = 700,
       NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, STUCK = 999 };
typedef unsigned long long ptr;
typedef void (*host_function)(void *);

// Counts of live objects and of calls.

enum { CONTEXTS, STREAMS, BLOCKING, CAPTURING, EVENTS, MEMORY, LOCKED, GRAPHS, EXECUTABLES, MODULES, WAITS, LAUNCHES,
       KERNELS, FAULTS, KINDS };
static const char *kinds[] = {"contexts", "streams", "blocking", "capturing", "events", "memory", "locked", "graphs",
                              "executables", "modules", "waits", "launches", "kernels", "faults"};
static _Atomic int counts[KINDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t progress = PTHREAD_COND_INITIALIZER;
static char failing[64];
static int failing_code, failing_times;

int fake_count(const char *kind) {
  for (int i = 0; i < KINDS; i++)
    if (!strcmp(kind, kinds[i])) return counts[i];
  return -1;
}

void fake_fail(const char *call, int code, int times) { // make the next calls of this function fail
  snprintf(failing, sizeof failing, "%s", call);
  failing_code = code;
  failing_times = times;
}

static int fails(const char *call) {
  return strcmp(failing, call) || failing_times-- <= 0 ? 0 : failing_code;
}

// One context. A thread keeps only the depth of its stack.

static char primary;
static __thread int depth;
static __thread int capturing; // number of streams that this thread captures

// Memory: allocated ranges.

typedef struct range { ptr start, size; int kind; struct range *next; } range;
static range *ranges;

static int allocate(void **memory, size_t size, int kind) {
  pthread_mutex_lock(&lock);
  range *new = malloc(sizeof *new);
  *memory = aligned_alloc(256, (size + 511) / 256 * 256);
  memset(*memory, 0xff, size); // all floats are NaN
  *new = (range){(ptr)*memory, size, kind, ranges};
  ranges = new;
  counts[kind]++;
  pthread_mutex_unlock(&lock);
  return 0;
}

static int release(ptr memory, int kind) {
  int code = INVALID;
  pthread_mutex_lock(&lock);
  for (range **at = &ranges; *at; at = &(*at)->next)
    if ((*at)->start == memory && (*at)->kind == kind) {
      range *old = *at;
      *at = old->next;
      memset((void *)old->start, 0xff, old->size);
      free((void *)old->start);
      free(old);
      counts[kind]--;
      code = 0;
      break;
    }
  pthread_mutex_unlock(&lock);
  return code;
}

static int touches(ptr start, size_t size) {
  for (range *r = ranges; r; r = r->next)
    if (r->start <= start && start + size <= r->start + r->size) return 1;
  return 0;
}

// Streams: queues of work, run by the thread that waits.

typedef struct { unsigned long recorded, reached; } event;
typedef struct op {
  enum { COPY, SET, RECORD, WAIT, CALL } kind;
  ptr to, of;
  size_t size;
  event *event;
  unsigned long number;
  host_function function;
  void *data;
  struct op *next;
} op;
typedef struct { op *first, **last; } queue;
typedef struct stream {
  queue work, *captured;
  int busy, void_, blocking;
  pthread_t capturer;
  struct stream *next;
} stream;
static stream *streams;

static void append(queue *to, op work) {
  op *new = malloc(sizeof *new);
  *new = work;
  new->next = NULL;
  if (!to->first) to->last = &to->first;
  *to->last = new;
  to->last = &new->next;
}

static int put(stream *on, op work) {
  if (!depth) return NO_CONTEXT;
  if (!on) return NOT_SUPPORTED; // framecast must not use the default stream
  pthread_mutex_lock(&lock);
  append(on->captured ? on->captured : &on->work, work);
  pthread_mutex_unlock(&lock);
  return 0;
}

static int step(stream *on) { // run the first piece of work if it is ready; the caller holds the lock
  op *work = on->work.first;
  if (!work || on->busy || (work->kind == WAIT && work->event->reached < work->number)) return 0;
  on->work.first = work->next;
  int wild = work->kind <= SET && !touches(work->to, work->size);
  wild |= work->kind == COPY && !touches(work->of, work->size);
  if (wild) counts[FAULTS]++;
  else if (work->kind == COPY) memcpy((void *)work->to, (void *)work->of, work->size);
  else if (work->kind == SET) memset((void *)work->to, (int)work->number, work->size);
  else if (work->kind == RECORD && work->event->reached < work->number) work->event->reached = work->number;
  else if (work->kind == CALL) { // unlock: it may need Python's lock, whose holder may need ours
    on->busy = 1;
    pthread_mutex_unlock(&lock);
    work->function(work->data);
    pthread_mutex_lock(&lock);
    on->busy = 0;
    pthread_cond_broadcast(&progress);
  }
  free(work);
  return 1;
}

static int finish(stream *on, event *of) { // wait for a stream or an event; for everything if both are NULL
  if (!depth) return NO_CONTEXT;
  pthread_mutex_lock(&lock);
  counts[WAITS]++;
  unsigned long number = of ? of->recorded : 0;
  int code = 0;
  for (;;) {
    int did = 0, busy = 0, left = 0;
    if (of ? of->reached >= number : on && !on->work.first && !on->busy) break;
    for (stream *s = streams; s; s = s->next) {
      did |= step(s);
      busy |= s->busy;
      left |= s->work.first != NULL;
    }
    if (did) continue;
    if (busy) { pthread_cond_wait(&progress, &lock); continue; }
    if (left || of || on) code = STUCK;
    break;
  }
  if (counts[FAULTS] && !code) code = ILLEGAL_ADDRESS;
  pthread_mutex_unlock(&lock);
  return code;
}

static int unsafe(const char *call) { // check a call that invalidates a capture in this thread
  int code = fails(call);
  if (code) return code;
  if (!depth) return NO_CONTEXT;
  if (!capturing) return 0;
  pthread_mutex_lock(&lock);
  for (stream *s = streams; s; s = s->next) s->void_ |= s->captured && pthread_equal(s->capturer, pthread_self());
  pthread_mutex_unlock(&lock);
  return CAPTURE_UNSUPPORTED;
}

#define TRY(call) do { int code_ = (call); if (code_) return code_; } while (0)

int cuInit(unsigned flags) { return fails("cuInit"); }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuGetErrorString(int code, const char **text) { *text = code == NO_MEMORY ? "out of memory" : "an error"; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return number ? 101 : 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, (size_t)size, "Fake 9000"); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : which == 76 ? 7 : 0; return 0; }

int cuDevicePrimaryCtxRetain(void **context, int device) { counts[CONTEXTS]++; *context = &primary; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { counts[CONTEXTS]--; return 0; }
int cuCtxDetach(void *context) { return NO_CONTEXT; } // not allowed for primary contexts
int cuCtxPushCurrent_v2(void *context) { if (context != &primary) return NO_CONTEXT; depth++; return 0; }
int cuCtxPopCurrent_v2(void **context) { if (!depth) return NO_CONTEXT; depth--; *context = &primary; return 0; }
int cuCtxSynchronize(void) { TRY(unsafe("cuCtxSynchronize")); return finish(NULL, NULL); }

int cuMemAlloc_v2(ptr *memory, size_t size) { TRY(unsafe("cuMemAlloc")); return allocate((void **)memory, size, MEMORY); }
int cuMemFree_v2(ptr memory) { TRY(unsafe("cuMemFree")); return release(memory, MEMORY); }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) {
  TRY(unsafe("cuMemHostAlloc"));
  return allocate(memory, size, LOCKED);
}
int cuMemFreeHost(void *memory) { TRY(unsafe("cuMemFreeHost")); return release((ptr)memory, LOCKED); }
int cuMemcpyHtoDAsync_v2(ptr to, const void *of, size_t size, stream *on) {
  return put(on, (op){.kind = COPY, .to = to, .of = (ptr)of, .size = size});
}
int cuMemcpyDtoHAsync_v2(void *to, ptr of, size_t size, stream *on) {
  return put(on, (op){.kind = COPY, .to = (ptr)to, .of = of, .size = size});
}
int cuMemcpyDtoDAsync_v2(ptr to, ptr of, size_t size, stream *on) {
  return put(on, (op){.kind = COPY, .to = to, .of = of, .size = size});
}
int cuMemsetD8Async(ptr to, unsigned char value, size_t size, stream *on) {
  return put(on, (op){.kind = SET, .to = to, .number = value, .size = size});
}

int cuStreamCreate(stream **new, unsigned flags) {
  TRY(unsafe("cuStreamCreate"));
  pthread_mutex_lock(&lock);
  *new = calloc(1, sizeof **new);
  (*new)->blocking = !(flags & 1);
  (*new)->next = streams;
  streams = *new;
  counts[STREAMS]++;
  counts[BLOCKING] += (*new)->blocking;
  pthread_mutex_unlock(&lock);
  return 0;
}
int cuStreamDestroy_v2(stream *old) {
  TRY(unsafe("cuStreamDestroy"));
  pthread_mutex_lock(&lock);
  counts[FAULTS] += old->work.first != NULL; // pending work would be lost
  for (stream **s = &streams; *s; s = &(*s)->next)
    if (*s == old) { *s = old->next; free(old); counts[STREAMS]--; break; }
  pthread_mutex_unlock(&lock);
  return 0;
}
int cuStreamSynchronize(stream *on) { TRY(unsafe("cuStreamSynchronize")); return finish(on, NULL); }
int cuStreamWaitEvent(stream *on, event *of, unsigned flags) {
  if (on->captured) return CAPTURE_UNSUPPORTED;
  return put(on, (op){.kind = WAIT, .event = of, .number = of->recorded});
}
int cuLaunchHostFunc(stream *on, host_function function, void *data) {
  return put(on, (op){.kind = CALL, .function = function, .data = data});
}

int cuEventCreate(event **new, unsigned flags) {
  TRY(unsafe("cuEventCreate"));
  *new = calloc(1, sizeof **new);
  counts[EVENTS]++;
  return 0;
}
int cuEventDestroy_v2(event *old) { // not freed, because queues may still refer to it
  TRY(unsafe("cuEventDestroy"));
  counts[FAULTS] += old->reached < old->recorded;
  counts[EVENTS]--;
  return 0;
}
int cuEventRecord(event *of, stream *on) { return put(on, (op){.kind = RECORD, .event = of, .number = ++of->recorded}); }
int cuEventSynchronize(event *of) { TRY(unsafe("cuEventSynchronize")); return finish(NULL, of); }

// Graphs are queues.

int cuStreamBeginCapture_v2(stream *on, int mode) {
  TRY(fails("cuStreamBeginCapture"));
  if (!depth) return NO_CONTEXT;
  if (on->captured) return ILLEGAL_STATE;
  pthread_mutex_lock(&lock);
  on->captured = calloc(1, sizeof *on->captured);
  on->capturer = pthread_self();
  on->void_ = 0;
  pthread_mutex_unlock(&lock);
  counts[CAPTURING]++;
  capturing++;
  return 0;
}
int cuStreamEndCapture(stream *on, queue **graph) {
  if (!on->captured) return ILLEGAL_STATE;
  capturing--;
  counts[CAPTURING]--;
  pthread_mutex_lock(&lock);
  *graph = on->void_ ? NULL : on->captured;
  on->captured = NULL;
  pthread_mutex_unlock(&lock);
  counts[GRAPHS] += *graph != NULL;
  return *graph ? fails("cuStreamEndCapture") : CAPTURE_INVALIDATED;
}
int cuStreamIsCapturing(stream *on, int *status) { *status = on->captured != NULL; return 0; }
int cuGraphInstantiateWithFlags(queue **new, queue *graph, unsigned long long flags) {
  TRY(fails("cuGraphInstantiate"));
  *new = calloc(1, sizeof **new);
  for (op *work = graph->first; work; work = work->next) append(*new, *work);
  counts[EXECUTABLES]++;
  return 0;
}
int cuGraphLaunch(queue *graph, stream *on) {
  TRY(fails("cuGraphLaunch"));
  counts[LAUNCHES]++;
  for (op *work = graph->first; work; work = work->next) TRY(put(on, *work));
  return 0;
}
int cuGraphDestroy(queue *graph) { counts[GRAPHS]--; return 0; }
int cuGraphExecDestroy(queue *graph) { if (!depth) return NO_CONTEXT; counts[EXECUTABLES]--; return 0; }

// Kernels are only counted.

int cuModuleLoadData(void **module, const void *image) { *module = malloc(1); counts[MODULES]++; return 0; }
int cuModuleUnload(void *module) { counts[MODULES]--; return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { *function = module; return 0; }
static void kernel(void *function) { counts[KERNELS]++; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, stream *on, void **parameters, void **extra) {
  return put(on, (op){.kind = CALL, .function = kernel, .data = function});
}
