/*
 * Touching files through the mount, from a thread that the serving thread never waits for (notifier.c). There are things
 * that no notify tells the kernel: it takes the size of a file only from an answer (fs/fuse/inode.c,
 * fuse_reverse_inval_inode leaves i_size alone), and only system calls make inotify events. The filesystem knows
 * the thread, and what it asks for changes nothing (src/vfs/touched.ts).
 *
 * utimensat(2) is used for sizes because SETATTR is answered under the inode's lock, and the kernel takes the size of
 * that answer whatever it had (fs/fuse/dir.c, fuse_do_setattr): whoever appends has finished, or begins after it.
 */
#include "nexus_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* FILEID_INO64_GEN (linux/exportfs.h): what fuse_encode_fh makes */
enum { HANDLE_TYPE = 0x81, HANDLE_WORDS = 3 };

/* As binding.ts writes it; behind it the mountpoint and a path below it, each with its NUL. */
struct errand {
  uint32_t kind;
  uint32_t generation;
  uint64_t node;
  int64_t seconds[2]; /* of access, of modification */
  int64_t nanos[2];
};

/* The inode that the kernel has of a node, if it has one: no name is looked up. Returns a descriptor or a negative errno. */
int open_node(int mount, uint64_t node, uint32_t generation, int flags) {
  uint32_t words[HANDLE_WORDS] = {(uint32_t)(node >> 32), (uint32_t)node, generation};
  struct file_handle *handle = malloc(sizeof(*handle) + sizeof(words));
  if (handle == NULL) return -ENOMEM;
  handle->handle_bytes = sizeof(words);
  handle->handle_type = HANDLE_TYPE;
  memcpy(handle->f_handle, words, sizeof(words));
  int fd = open_by_handle_at(mount, handle, flags);
  int error = errno;
  free(handle);
  return fd < 0 ? -error : fd;
}

/* Neither symlinks nor other mounts are followed: a path may lead elsewhere by now. */
static int open_path(int mount, const char *path, uint64_t flags) {
  struct open_how how = {.flags = flags | O_NOFOLLOW | O_CLOEXEC,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS};
  long fd = syscall(SYS_openat2, mount, *path == '\0' ? "." : path, &how, sizeof(how));
  return fd < 0 ? -errno : (int)fd;
}

static int32_t set_times(int fd, const struct errand *errand) {
  struct timespec times[2];
  for (int i = 0; i < 2; i++) times[i] = (struct timespec){errand->seconds[i], errand->nanos[i]};
  if (utimensat(fd, "", times, AT_EMPTY_PATH) == 0) return 0;
  if (errno != EINVAL) return -errno;
  /* Before Linux 5.8. This thread has descriptors of its own. */
  char path[40];
  snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
  return utimensat(AT_FDCWD, path, times, 0) == 0 ? 0 : -errno;
}

static int32_t touch_in(int mount, const struct errand *errand, const char *path) {
  int fd = open_node(mount, errand->node, errand->generation, O_PATH | O_CLOEXEC);
  /* Without CAP_DAC_READ_SEARCH only paths are left. */
  if (fd == -EPERM) fd = open_path(mount, path, O_PATH);
  if (fd < 0) return fd;
  int32_t result = set_times(fd, errand);
  close(fd);
  return result;
}

int32_t touch(const char *bytes, size_t length) {
  struct errand errand;
  if (length < sizeof(errand) + 2 || bytes[length - 1] != '\0') return -EINVAL;
  memcpy(&errand, bytes, sizeof(errand));
  const char *mountpoint = bytes + sizeof(errand);
  const char *path = mountpoint + strlen(mountpoint) + 1;
  if (path >= bytes + length) return -EINVAL;
  /* Opened for each, because an open directory keeps its mount from being unmounted. */
  int mount = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (mount < 0) return -errno;
  int32_t result = touch_in(mount, &errand, path);
  close(mount);
  return result;
}
