/* mount(2) and umount2(2), for a caller with CAP_SYS_ADMIN. */
#include "nexus_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

struct mount_request {
  char *mountpoint;
  char *options;
  char *type;
  char *source;
  int flags;
};

static void free_request(struct mount_request *request) {
  free(request->mountpoint);
  free(request->options);
  free(request->type);
  free(request->source);
}

static bool read_request(napi_env env, const napi_value *args, struct mount_request *request) {
  *request = (struct mount_request){0};
  if ((request->mountpoint = get_string(env, args[0])) == NULL) return false;
  if ((request->options = get_string(env, args[1])) == NULL) return false;
  if (!get_int(env, args[2], &request->flags)) return false;
  if ((request->type = get_string(env, args[3])) == NULL) return false;
  return (request->source = get_string(env, args[4])) != NULL;
}

/* Mounts on an open /dev/fuse. Returns 0 or an errno. */
static int mount_device(const struct mount_request *request, int fd) {
  char *data;
  if (asprintf(&data, "fd=%d,%s", fd, request->options) < 0) return ENOMEM;
  int failed = mount(request->source, request->mountpoint, request->type, (unsigned long)request->flags, data);
  int error = failed ? errno : 0;
  free(data);
  return error;
}

static napi_value mount_and_wrap(napi_env env, const struct mount_request *request) {
  int fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    throw_errno(env, errno, "open /dev/fuse", NULL);
    return NULL;
  }
  int error = mount_device(request, fd);
  if (error == 0) return make_int(env, fd);
  close(fd);
  throw_errno(env, error, "mount", request->mountpoint);
  return NULL;
}

napi_value nexus_mount(napi_env env, napi_callback_info info) {
  napi_value args[5];
  struct mount_request request;
  if (!get_args(env, info, 5, args)) return NULL;
  napi_value fd = NULL;
  if (read_request(env, args, &request)) fd = mount_and_wrap(env, &request);
  free_request(&request);
  return fd;
}

napi_value nexus_umount(napi_env env, napi_callback_info info) {
  napi_value args[2];
  int flags;
  if (!get_args(env, info, 2, args) || !get_int(env, args[1], &flags)) return NULL;
  char *mountpoint = get_string(env, args[0]);
  if (mountpoint == NULL) return NULL;
  if (umount2(mountpoint, flags) != 0) throw_errno(env, errno, "umount2", mountpoint);
  free(mountpoint);
  return NULL;
}
