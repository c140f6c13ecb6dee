/*
 * A thread of its own for what may wait in the kernel until we have answered a request: notifies, syncfs of the mount, and
 * touching files in it.
 *
 * A notify can wait for a lock that another request holds, and that request may be waiting for the
 * serving thread: written from there it could hang for ever. Where syncfs waits for the pages that it
 * writes (older kernels), it waits for our answers. The thread is detached and nobody joins it, because
 * what is stuck cannot be interrupted.
 *
 * It also has a descriptor table of its own, with only /dev/fuse and the eventfd in it. A process
 * that is killed while this thread is stuck stays, half dead, until the lock is free; with a
 * shared table all its descriptors would stay open as well, and neither its supervisor (end of
 * file on a pipe) nor its successor (locks in the data directory) would learn that it is gone.
 * That is why results travel by an eventfd: a napi_threadsafe_function wakes the loop through a
 * descriptor that this thread no longer has.
 */
#include "nexus_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/*
 * What a batch holds:
 * - SEND: notifies
 * - SYNC: the path of a directory whose filesystem is to be written out
 * - FLUSH: the path of a directory, then struct file of that filesystem whose dirty pages are to be written
 * - TOUCH: errands of touch.c
 */
enum work { SEND, SYNC, FLUSH, TOUCH };

struct file {
  uint64_t node;
  uint64_t generation;
};

/* What was given together, and afterwards what became of each. */
struct batch {
  struct batch *next;
  enum work work;
  int directory; /* of FLUSH, while it is carried out */
  size_t count;
  uint32_t *lengths;
  int32_t *results;
  char *bytes;
};

struct queue {
  struct batch *first;
  struct batch **last;
};

enum state { STARTING, RUNNING, STOPPING };

/* Owned by the thread and by the JavaScript value; the last one frees it. */
struct notifier {
  enum handle_kind kind;
  int fuse_fd;
  int event_fd; /* readable while there are results; the thread and the process have one each */
  int own_event_fd; /* the process's, of the same number; -1 once it is closed: that number may be another's */
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  /* All below are guarded by the mutex. */
  struct queue given;
  struct queue done;
  enum state state;
  pid_t thread;
  int start_error;
  int owners;
};

enum { EAGAIN_RETRIES_MAX = 100 };

static struct batch *new_batch(size_t count, size_t length) {
  struct batch *batch = malloc(sizeof(*batch) + count * (sizeof(uint32_t) + sizeof(int32_t)) + length);
  if (batch == NULL) return NULL;
  batch->next = NULL;
  batch->work = SEND;
  batch->directory = -1;
  batch->count = count;
  batch->lengths = (uint32_t *)(batch + 1);
  batch->results = (int32_t *)(batch->lengths + count);
  batch->bytes = (char *)(batch->results + count);
  return batch;
}

static void clear(struct queue *queue) {
  queue->first = NULL;
  queue->last = &queue->first;
}

static void append(struct queue *queue, struct batch *batch) {
  batch->next = NULL;
  *queue->last = batch;
  queue->last = &batch->next;
}

static struct batch *take(struct queue *queue) {
  struct batch *batch = queue->first;
  if (batch == NULL) return NULL;
  queue->first = batch->next;
  if (queue->first == NULL) clear(queue);
  return batch;
}

static void free_batches(struct batch *batch) {
  while (batch != NULL) {
    struct batch *next = batch->next;
    free(batch);
    batch = next;
  }
}

static void release(struct notifier *notifier) {
  pthread_mutex_lock(&notifier->mutex);
  bool unused = --notifier->owners == 0;
  pthread_mutex_unlock(&notifier->mutex);
  if (!unused) return;
  free_batches(notifier->given.first);
  free_batches(notifier->done.first);
  pthread_cond_destroy(&notifier->changed);
  pthread_mutex_destroy(&notifier->mutex);
  free(notifier);
}

/* ---- on the thread ---- */

/* Leaves this thread a table with only the two in it. Returns 0 or an errno. */
static int take_own_table(int one, int other) {
  unsigned low = (unsigned)(one < other ? one : other);
  unsigned high = (unsigned)(one < other ? other : one);
  if (close_range(high + 1, ~0U, CLOSE_RANGE_UNSHARE) != 0) return errno;
  if (high > low + 1) close_range(low + 1, high - 1, 0);
  if (low > 0) close_range(0, low - 1, 0);
  return 0;
}

static bool start(struct notifier *notifier) {
  int error = take_own_table(notifier->fuse_fd, notifier->event_fd);
  pthread_mutex_lock(&notifier->mutex);
  notifier->state = error == 0 ? RUNNING : STOPPING;
  notifier->thread = gettid();
  notifier->start_error = error;
  pthread_cond_broadcast(&notifier->changed);
  pthread_mutex_unlock(&notifier->mutex);
  return error == 0;
}

/* The next batch, or NULL when the notifier stops. */
static struct batch *take_given(struct notifier *notifier) {
  pthread_mutex_lock(&notifier->mutex);
  while (notifier->given.first == NULL && notifier->state == RUNNING) pthread_cond_wait(&notifier->changed, &notifier->mutex);
  struct batch *batch = notifier->state == RUNNING ? take(&notifier->given) : NULL;
  pthread_mutex_unlock(&notifier->mutex);
  return batch;
}

/* Writes one message and waits as long as the kernel does. Returns 0 or a negative errno. */
static int32_t write_message(int fd, const char *bytes, size_t length) {
  static const struct timespec pause = {0, 1000000};
  for (int tries = 0;; tries++) {
    if (write(fd, bytes, length) >= 0) return 0;
    if (errno == EAGAIN && tries < EAGAIN_RETRIES_MAX) nanosleep(&pause, NULL);
    else if (errno != EINTR) return -errno;
  }
}

/*
 * Opened for each, because an open directory keeps its mount from being unmounted. What syncfs(2) returns is the error of
 * some page of the whole filesystem, perhaps of long ago (errseq_sample: one that nobody has seen yet), so it says nothing to
 * whoever asks: a page that is refused is refused by our own answer. Returns 0 or a negative errno of open(2).
 */
static int32_t sync_filesystem(const char *directory) {
  int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  syncfs(fd);
  close(fd);
  return 0;
}

/*
 * Writes one file's dirty pages and waits for them. It is opened by a handle, which needs no request while the
 * kernel has the inode. Returns 0 or a negative errno; what sync_file_range(2) itself
 * returns may be of long ago, as with syncfs(2).
 */
static int32_t flush_file(int directory, const char *bytes) {
  struct file file;
  memcpy(&file, bytes, sizeof(file));
  int fd = open_node(directory, file.node, (uint32_t)file.generation, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return fd;
  sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  close(fd);
  return 0;
}

/* The first of FLUSH is the directory, which the others need. */
static int32_t flush_next(struct batch *batch, const char *bytes) {
  if (batch->directory >= 0) return flush_file(batch->directory, bytes);
  batch->directory = open(bytes, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return batch->directory < 0 ? -errno : 0;
}

static int32_t carry_out(const struct notifier *notifier, struct batch *batch, const char *bytes, size_t length) {
  switch (batch->work) {
    case SYNC: return sync_filesystem(bytes);
    case FLUSH: return flush_next(batch, bytes);
    case TOUCH: return touch(bytes, length);
    default: return write_message(notifier->fuse_fd, bytes, length);
  }
}

/* A long batch looks between two messages whether it is to stop. */
static bool is_running(struct notifier *notifier) {
  pthread_mutex_lock(&notifier->mutex);
  bool running = notifier->state == RUNNING;
  pthread_mutex_unlock(&notifier->mutex);
  return running;
}

static void carry_out_batch(struct notifier *notifier, struct batch *batch) {
  const char *bytes = batch->bytes;
  for (size_t i = 0; i < batch->count; i++) {
    bool is_lost = batch->work == FLUSH && i > 0 && batch->directory < 0;
    batch->results[i] = is_running(notifier) && !is_lost ? carry_out(notifier, batch, bytes, batch->lengths[i]) : -ECANCELED;
    bytes += batch->lengths[i];
  }
  if (batch->directory >= 0) close(batch->directory);
}

static void hand_over(struct notifier *notifier, struct batch *batch) {
  pthread_mutex_lock(&notifier->mutex);
  append(&notifier->done, batch);
  pthread_mutex_unlock(&notifier->mutex);
  eventfd_write(notifier->event_fd, 1);
}

/* Its table, and with it both descriptors, goes when the thread ends. */
static void *run(void *data) {
  struct notifier *notifier = data;
  if (start(notifier)) {
    struct batch *batch;
    while ((batch = take_given(notifier)) != NULL) {
      carry_out_batch(notifier, batch);
      hand_over(notifier, batch);
    }
  }
  release(notifier);
  return NULL;
}

/* ---- on the main thread ---- */

/* Tells the thread to end and closes the process's own eventfd. The second call does nothing. */
static void stop(struct notifier *notifier) {
  pthread_mutex_lock(&notifier->mutex);
  bool running = notifier->state == RUNNING;
  notifier->state = STOPPING;
  pthread_cond_broadcast(&notifier->changed);
  pthread_mutex_unlock(&notifier->mutex);
  if (!running) return;
  close(notifier->own_event_fd);
  notifier->own_event_fd = -1;
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  stop(data);
  release(data);
}

static struct notifier *new_notifier(int fuse_fd, int event_fd) {
  struct notifier *notifier = calloc(1, sizeof(*notifier));
  if (notifier == NULL) return NULL;
  pthread_mutex_init(&notifier->mutex, NULL);
  pthread_cond_init(&notifier->changed, NULL);
  clear(&notifier->given);
  clear(&notifier->done);
  notifier->kind = HANDLE_NOTIFIER;
  notifier->fuse_fd = fuse_fd;
  notifier->event_fd = event_fd;
  notifier->own_event_fd = event_fd;
  notifier->owners = 2;
  return notifier;
}

/* Signals belong to the main thread. Returns 0 or an errno. */
static int create_thread(struct notifier *notifier) {
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&thread, NULL, run, notifier);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error == 0) pthread_detach(thread);
  return error;
}

/* Returns once the thread has its own descriptors, so that ours may be closed. */
static int wait_until_started(struct notifier *notifier) {
  pthread_mutex_lock(&notifier->mutex);
  while (notifier->state == STARTING) pthread_cond_wait(&notifier->changed, &notifier->mutex);
  int error = notifier->start_error;
  pthread_mutex_unlock(&notifier->mutex);
  return error;
}

/* A running notifier in *started, or an errno and the call that failed. */
static int start_notifier(int fuse_fd, int event_fd, struct notifier **started, const char **syscall) {
  *syscall = "malloc";
  struct notifier *notifier = new_notifier(fuse_fd, event_fd);
  if (notifier == NULL) return ENOMEM;
  *syscall = "pthread_create";
  int error = create_thread(notifier);
  if (error != 0) {
    release(notifier);
    release(notifier);
    return error;
  }
  *syscall = "close_range";
  error = wait_until_started(notifier);
  if (error != 0) release(notifier);
  *started = notifier;
  return error;
}

static napi_value wrap(napi_env env, struct notifier *notifier) {
  napi_value external = NULL;
  if (napi_create_external(env, notifier, on_collected, NULL, &external) != napi_ok) on_collected(env, notifier, NULL);
  return external;
}

napi_value nexus_start_notifier(napi_env env, napi_callback_info info) {
  napi_value args[1];
  int fuse_fd;
  if (!get_args(env, info, 1, args) || !get_int(env, args[0], &fuse_fd)) return NULL;
  int event_fd = fcntl(fuse_fd, F_GETFD) < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd < 0) {
    throw_errno(env, errno, "eventfd", NULL);
    return NULL;
  }
  struct notifier *notifier;
  const char *syscall;
  int error = start_notifier(fuse_fd, event_fd, &notifier, &syscall);
  if (error == 0) return wrap(env, notifier);
  close(event_fd);
  throw_errno(env, error, syscall, NULL);
  return NULL;
}

static bool get_notifier(napi_env env, napi_value value, struct notifier **notifier) {
  void *handle;
  if (!get_handle(env, value, HANDLE_NOTIFIER, &handle)) return false;
  *notifier = handle;
  return true;
}

napi_value nexus_notifier_fd(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct notifier *notifier;
  if (!get_args(env, info, 1, args) || !get_notifier(env, args[0], &notifier)) return NULL;
  return make_int(env, notifier->own_event_fd);
}

/* The lengths must add up to the bytes given, or the thread would read past them. */
static bool lengths_fit(const uint32_t *lengths, size_t count, size_t total) {
  size_t sum = 0;
  for (size_t i = 0; i < count; i++) sum += lengths[i];
  return sum == total;
}

static void enqueue(struct notifier *notifier, struct batch *batch) {
  pthread_mutex_lock(&notifier->mutex);
  append(&notifier->given, batch);
  pthread_cond_broadcast(&notifier->changed);
  pthread_mutex_unlock(&notifier->mutex);
}

/* The thread's number, by which /dev/fuse names whoever asks. */
napi_value nexus_notifier_thread(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct notifier *notifier;
  if (!get_args(env, info, 1, args) || !get_notifier(env, args[0], &notifier)) return NULL;
  return make_int(env, notifier->thread);
}

static napi_value give(napi_env env, napi_callback_info info, enum work work) {
  napi_value args[3];
  struct notifier *notifier;
  void *bytes, *lengths;
  size_t total, count;
  if (!get_args(env, info, 3, args) || !get_notifier(env, args[0], &notifier)) return NULL;
  if (!get_bytes(env, args[1], &bytes, &total) || !get_array(env, args[2], napi_uint32_array, &lengths, &count)) return NULL;
  if (!lengths_fit(lengths, count, total)) {
    throw_errno(env, EINVAL, "notify", NULL);
    return NULL;
  }
  struct batch *batch = new_batch(count, total);
  if (batch == NULL) {
    throw_errno(env, ENOMEM, "malloc", NULL);
    return NULL;
  }
  if (count > 0) memcpy(batch->lengths, lengths, count * sizeof(uint32_t));
  if (total > 0) memcpy(batch->bytes, bytes, total);
  batch->work = work;
  enqueue(notifier, batch);
  return NULL;
}

napi_value nexus_notify(napi_env env, napi_callback_info info) { return give(env, info, SEND); }

napi_value nexus_touch(napi_env env, napi_callback_info info) { return give(env, info, TOUCH); }

napi_value nexus_sync_filesystem(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct notifier *notifier;
  if (!get_args(env, info, 2, args) || !get_notifier(env, args[0], &notifier)) return NULL;
  char *directory = get_string(env, args[1]);
  if (directory == NULL) return NULL;
  size_t bytes = strlen(directory) + 1;
  struct batch *batch = new_batch(1, bytes);
  if (batch == NULL) {
    throw_errno(env, ENOMEM, "malloc", NULL);
  } else {
    batch->work = SYNC;
    batch->lengths[0] = (uint32_t)bytes;
    memcpy(batch->bytes, directory, bytes);
    enqueue(notifier, batch);
  }
  free(directory);
  return NULL;
}

/* A directory, and struct file of each that is to be flushed. */
napi_value nexus_flush_files(napi_env env, napi_callback_info info) {
  napi_value args[3];
  struct notifier *notifier;
  void *files;
  size_t total;
  if (!get_args(env, info, 3, args) || !get_notifier(env, args[0], &notifier)) return NULL;
  if (!get_bytes(env, args[2], &files, &total)) return NULL;
  if (total % sizeof(struct file) != 0) {
    throw_errno(env, EINVAL, "sync_file_range", NULL);
    return NULL;
  }
  char *directory = get_string(env, args[1]);
  if (directory == NULL) return NULL;
  size_t bytes = strlen(directory) + 1;
  size_t count = total / sizeof(struct file);
  struct batch *batch = new_batch(1 + count, bytes + total);
  if (batch == NULL) {
    throw_errno(env, ENOMEM, "malloc", NULL);
  } else {
    batch->work = FLUSH;
    batch->lengths[0] = (uint32_t)bytes;
    for (size_t i = 1; i <= count; i++) batch->lengths[i] = sizeof(struct file);
    memcpy(batch->bytes, directory, bytes);
    if (total > 0) memcpy(batch->bytes + bytes, files, total);
    enqueue(notifier, batch);
  }
  free(directory);
  return NULL;
}

/* Takes back what the thread has not begun, so that another can do it. Returns how many batches: those given last. */
napi_value nexus_take_back(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct notifier *notifier;
  if (!get_args(env, info, 1, args) || !get_notifier(env, args[0], &notifier)) return NULL;
  pthread_mutex_lock(&notifier->mutex);
  struct batch *batches = notifier->given.first;
  clear(&notifier->given);
  pthread_mutex_unlock(&notifier->mutex);
  int count = 0;
  for (struct batch *batch = batches; batch != NULL; batch = batch->next) count++;
  free_batches(batches);
  return make_int(env, count);
}

static napi_value make_results(napi_env env, const struct batch *batch) {
  void *bytes;
  napi_value buffer, results;
  if (napi_create_arraybuffer(env, batch->count * sizeof(int32_t), &bytes, &buffer) != napi_ok) return NULL;
  if (batch->count > 0) memcpy(bytes, batch->results, batch->count * sizeof(int32_t));
  if (napi_create_typedarray(env, napi_int32_array, batch->count, buffer, 0, &results) != napi_ok) return NULL;
  return results;
}

/* Everything that is done by now; the eventfd is reset first, so that what follows wakes us again. */
static struct batch *take_done(struct notifier *notifier) {
  eventfd_t count;
  eventfd_read(notifier->own_event_fd, &count);
  pthread_mutex_lock(&notifier->mutex);
  struct batch *batches = notifier->done.first;
  clear(&notifier->done);
  pthread_mutex_unlock(&notifier->mutex);
  return batches;
}

napi_value nexus_take_results(napi_env env, napi_callback_info info) {
  napi_value args[1], taken;
  struct notifier *notifier;
  if (!get_args(env, info, 1, args) || !get_notifier(env, args[0], &notifier)) return NULL;
  if (napi_create_array(env, &taken) != napi_ok) return NULL;
  struct batch *batches = take_done(notifier);
  uint32_t index = 0;
  for (struct batch *batch = batches; batch != NULL; batch = batch->next) {
    napi_value results = make_results(env, batch);
    if (results != NULL) napi_set_element(env, taken, index++, results);
  }
  free_batches(batches);
  return taken;
}

napi_value nexus_stop_notifier(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct notifier *notifier;
  if (get_args(env, info, 1, args) && get_notifier(env, args[0], &notifier)) stop(notifier);
  return NULL;
}
