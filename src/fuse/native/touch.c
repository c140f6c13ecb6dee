/*
 * Errands through the mount, from a thread that the serving thread never waits for (notifier.c). There are things
 * that no notify tells the kernel: it takes the size of a file only from an answer (fs/fuse/inode.c,
 * fuse_reverse_inval_inode leaves i_size alone), and only system calls make inotify events. The filesystem knows
 * the thread, and what it asks for changes nothing (src/vfs/touched.ts, src/vfs/tidings.ts).
 *
 * - utimensat(2) is used for sizes because SETATTR is answered under the inode's lock, and the kernel takes the size of
 *   that answer whatever it had (fs/fuse/dir.c, fuse_do_setattr): whoever appends has finished, or begins after it.
 * - The kernel makes IN_ATTRIB of a utimensat(2) with both times, and IN_MODIFY of one with the time of modification alone
 *   (fsnotify_change, include/linux/fsnotify.h). A truncate(2) to the same size would make IN_MODIFY too, but it fails while
 *   the file is executed, and drops pages.
 * - Only the close of a descriptor that may write makes IN_CLOSE_WRITE. Its open also breaks leases (fcntl(2)), as any
 *   program's that changes the file. With O_NONBLOCK neither a lease nor a FIFO is waited for.
 * - mknod(2) and unlink(2) make IN_CREATE and IN_DELETE when the filesystem agrees to them.
 */
#include "nexus_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* FILEID_INO64_GEN (linux/exportfs.h): what fuse_encode_fh makes */
enum { HANDLE_TYPE = 0x81, HANDLE_WORDS = 3 };

/*
 * What is done, as binding.ts numbers it:
 * - ATTRIBUTES, CONTENT: the times are set, both or that of modification
 * - WRITTEN: the file is opened for writing and closed
 * - CAME, WENT: a name of the node, which is a directory, is made or removed
 */
enum kind { ATTRIBUTES, CONTENT, WRITTEN, CAME, WENT };

/*
 * As binding.ts writes it; behind it the mountpoint, the path of the node below it, and a name in the node, each with its NUL.
 * Without a name the errand is to the node itself.
 */
struct errand {
  uint32_t kind;
  uint32_t generation;
  uint64_t node;
  int64_t seconds[2]; /* of access, of modification */
  int64_t nanos[2];
  uint32_t type; /* S_IFMT bits of CAME and WENT */
  uint32_t reserved;
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
  if (errand->kind == CONTENT) times[0] = (struct timespec){0, UTIME_OMIT};
  if (utimensat(fd, "", times, AT_EMPTY_PATH) == 0) return 0;
  if (errno != EINVAL) return -errno;
  /* Before Linux 5.8. This thread has descriptors of its own. */
  char path[40];
  snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
  return utimensat(AT_FDCWD, path, times, 0) == 0 ? 0 : -errno;
}

static int32_t make_name(int directory, const char *name, uint32_t type) {
  int result;
  if (type == S_IFDIR) result = mkdirat(directory, name, 0700);
  else if (type == S_IFLNK) result = symlinkat("restored", directory, name);
  else result = mknodat(directory, name, type | 0600, 0);
  return result == 0 ? 0 : -errno;
}

/*
 * The group that these requests carry (src/vfs/tidings.ts). Should this process die before one is answered, the kernel sends it
 * again, to a process that knows no thread of ours; by the group that one knows that nothing is to be changed. setfsgid(2) is of this
 * thread alone. Without privileges it does nothing.
 */
enum { ERRAND_GID = 0xfffffffd };

static int32_t change_name(int directory, const char *name, const struct errand *errand) {
  int before = setfsgid((gid_t)ERRAND_GID);
  int32_t result;
  if (errand->kind == CAME) result = make_name(directory, name, errand->type);
  else result = unlinkat(directory, name, errand->type == S_IFDIR ? AT_REMOVEDIR : 0) == 0 ? 0 : -errno;
  setfsgid((gid_t)before);
  return result;
}

/* The node at a path, if it is that node still. */
static int open_node_at(int mount, const char *path, uint64_t node, uint64_t flags) {
  int fd = open_path(mount, path, flags);
  struct stat stat;
  if (fd < 0 || (fstat(fd, &stat) == 0 && stat.st_ino == node)) return fd;
  close(fd);
  return -ESTALE;
}

/*
 * The node of an errand. A handle leads to no directory whose name the kernel has dropped (ESTALE): a watch of inotify(7) keeps the
 * inode alone (exportfs_decode_fh wants a connected name of a directory). Nor does it without CAP_DAC_READ_SEARCH. Then the path
 * does, but not where ESTALE is an answer: that the kernel has no such file, whose size it could have wrong.
 */
static int open_errand(int mount, const struct errand *errand, const char *path, bool is_file, int flags) {
  int fd = open_node(mount, errand->node, errand->generation, flags);
  if (fd == -EPERM) return open_path(mount, path, (uint64_t)flags);
  if (fd == -ESTALE && !is_file) return open_node_at(mount, path, errand->node, (uint64_t)flags);
  return fd;
}

/* What an errand is to, opened: a node, or below it a name. Returns a descriptor or a negative errno. */
static int open_target(int mount, const struct errand *errand, const char *path, const char *name) {
  bool is_whole = *name == '\0' || errand->kind == CAME || errand->kind == WENT;
  int flags = (errand->kind == WRITTEN ? O_WRONLY | O_NONBLOCK | O_NOCTTY : O_PATH) | O_CLOEXEC;
  bool is_file = *name == '\0' && errand->kind == CONTENT;
  int node = open_errand(mount, errand, path, is_file, is_whole ? flags : O_PATH | O_CLOEXEC);
  if (node < 0 || is_whole) return node;
  int fd = open_path(node, name, (uint64_t)flags);
  close(node);
  return fd;
}

static int32_t carry_out(int mount, const struct errand *errand, const char *path, const char *name) {
  int fd = open_target(mount, errand, path, name);
  if (fd < 0) return fd;
  int32_t result = 0;
  if (errand->kind == CAME || errand->kind == WENT) result = change_name(fd, name, errand);
  else if (errand->kind != WRITTEN) result = set_times(fd, errand);
  close(fd);
  return result;
}

int32_t touch(const char *bytes, size_t length) {
  struct errand errand;
  if (length < sizeof(errand) + 3 || bytes[length - 1] != '\0') return -EINVAL;
  memcpy(&errand, bytes, sizeof(errand));
  const char *end = bytes + length;
  const char *mountpoint = bytes + sizeof(errand);
  const char *path = mountpoint + strlen(mountpoint) + 1;
  const char *name = path < end ? path + strlen(path) + 1 : end;
  if (name >= end) return -EINVAL;
  /* Opened for each, because an open directory keeps its mount from being unmounted. */
  int mount = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (mount < 0) return -errno;
  int32_t result = carry_out(mount, &errand, path, name);
  close(mount);
  return result;
}
