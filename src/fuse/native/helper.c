/*
 * Mounting without root: the setuid helper fusermount3 opens /dev/fuse, mounts, and hands the
 * descriptor back over the socket that _FUSE_COMMFD names (libfuse util/fusermount.c, send_fd).
 */
#include "nexus_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char helper_name[] = "fusermount3";

/* Where the helper finds its end of the socket. */
enum { HELPER_SOCKET = 3 };
static char helper_socket_env[] = "_FUSE_COMMFD=3";

/* Both ends of the two ways from the helper to us; -1 where closed. */
struct pipes {
  int socket[2];
  int stderr_pipe[2];
};

static void close_end(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static void close_pipes(struct pipes *pipes) {
  for (int end = 0; end < 2; end++) {
    close_end(&pipes->socket[end]);
    close_end(&pipes->stderr_pipe[end]);
  }
}

static int open_pipes(struct pipes *pipes) {
  *pipes = (struct pipes){{-1, -1}, {-1, -1}};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pipes->socket) != 0) return errno;
  if (pipe2(pipes->stderr_pipe, O_CLOEXEC) == 0) return 0;
  int error = errno;
  close_pipes(pipes);
  return error;
}

/* Our environment with the socket's number before it: the first of two equal names wins. */
static char **make_environment(void) {
  size_t count = 0;
  while (environ[count] != NULL) count++;
  char **environment = malloc((count + 2) * sizeof(char *));
  if (environment == NULL) return NULL;
  environment[0] = helper_socket_env;
  memcpy(environment + 1, environ, (count + 1) * sizeof(char *));
  return environment;
}

/* Starts the helper; only stderr and its socket reach it. Returns 0 or an errno. */
static int spawn_helper(const struct pipes *pipes, char *mountpoint, char *options, pid_t *pid) {
  char **environment = make_environment();
  if (environment == NULL) return ENOMEM;
  char *argv[] = {helper_name, "-o", options, "--", mountpoint, NULL};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  /* stderr first: its pipe could itself be number 3. */
  posix_spawn_file_actions_adddup2(&actions, pipes->stderr_pipe[1], STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipes->socket[1], HELPER_SOCKET);
  int error = posix_spawnp(pid, helper_name, &actions, NULL, argv, environment);
  posix_spawn_file_actions_destroy(&actions);
  free(environment);
  return error;
}

/* What the helper said on stderr, without the newline at its end. */
static void read_message(int fd, char *text, size_t size) {
  size_t used = 0;
  while (used + 1 < size) {
    ssize_t length = read(fd, text + used, size - 1 - used);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) break;
    used += (size_t)length;
  }
  while (used > 0 && text[used - 1] == '\n') used--;
  text[used] = '\0';
}

static void reap(pid_t pid) {
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

/* Runs the helper to its end. Returns the descriptor or -1; then text tells the reason. */
static int run_helper(struct pipes *pipes, pid_t pid, char *text, size_t size) {
  /* Our copies of the helper's ends must go, or we would never see that it has ended. */
  close_end(&pipes->socket[1]);
  close_end(&pipes->stderr_pipe[1]);
  int fd = receive_descriptor(pipes->socket[0]);
  close_end(&pipes->socket[0]);
  read_message(pipes->stderr_pipe[0], text, size);
  reap(pid);
  return fd;
}

static int set_nonblocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return errno;
  return 0;
}

static napi_value mount_through(napi_env env, struct pipes *pipes, char *mountpoint, char *options) {
  pid_t pid;
  int error = spawn_helper(pipes, mountpoint, options, &pid);
  if (error != 0) {
    throw_errno(env, error, helper_name, NULL);
    return NULL;
  }
  char text[512];
  int fd = run_helper(pipes, pid, text, sizeof(text));
  if (fd < 0) {
    throw_errno(env, EIO, helper_name, text);
    return NULL;
  }
  error = set_nonblocking(fd);
  if (error == 0) return make_int(env, fd);
  close(fd);
  throw_errno(env, error, "fcntl", NULL);
  return NULL;
}

static napi_value mount_with(napi_env env, char *mountpoint, char *options) {
  struct pipes pipes;
  int error = open_pipes(&pipes);
  if (error != 0) {
    throw_errno(env, error, "socketpair", NULL);
    return NULL;
  }
  napi_value fd = mount_through(env, &pipes, mountpoint, options);
  close_pipes(&pipes);
  return fd;
}

napi_value nexus_mount_with_helper(napi_env env, napi_callback_info info) {
  napi_value args[2], fd = NULL;
  if (!get_args(env, info, 2, args)) return NULL;
  char *mountpoint = get_string(env, args[0]);
  if (mountpoint == NULL) return NULL;
  char *options = get_string(env, args[1]);
  if (options != NULL) fd = mount_with(env, mountpoint, options);
  free(options);
  free(mountpoint);
  return fd;
}
