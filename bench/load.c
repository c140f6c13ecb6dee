/*
 * The loads that bounds.ts puts on a mount: many files, a large directory, many open files, many clients, and a probe that
 * asks while others work.
 *
 *   load DIRECTORY LOAD COUNT [SEED]
 *
 * prints one JSON document: how many operations, how many failed, seconds, and the microseconds of one (median, p99,
 * worst). `hold` and `probe` go on until their standard input is closed; `hold` says "ready" before.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES_PER_DIRECTORY 1000
#define WALK_DESCRIPTORS 64
#define PROBE_EVERY_MICROS 1000
#define MIXED_FILES 100
#define MIXED_BYTES_MAX 65536

static char buffer[1 << 20];
static float *times;
static size_t time_count, time_room, failures;

static void check(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_micros(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

static void took(double since)
{
	if (time_count == time_room) {
		time_room = time_room ? time_room * 2 : 65536;
		times = realloc(times, time_room * sizeof *times);
		check(times != NULL, "memory");
	}
	times[time_count++] = now_micros() - since;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static double quantile(double share)
{
	return time_count == 0 ? 0 : times[(size_t)(share * (time_count - 1))];
}

static const char *name_of(const char *prefix, int i)
{
	static char name[48];
	snprintf(name, sizeof name, "%s%07d", prefix, i);
	return name;
}

/* Small files, each with other content, a thousand in a directory. */
static void tree(int count)
{
	int directory = -1;
	for (int i = 0; i < count; i++) {
		if (i % FILES_PER_DIRECTORY == 0) {
			const char *name = name_of("d", i / FILES_PER_DIRECTORY);
			check(mkdir(name, 0755) == 0, "mkdir");
			if (directory >= 0)
				close(directory);
			directory = open(name, O_RDONLY | O_DIRECTORY);
			check(directory >= 0, "open directory");
		}
		double start = now_micros();
		int fd = openat(directory, name_of("f", i), O_CREAT | O_EXCL | O_WRONLY, 0644);
		check(fd >= 0, "create");
		int length = snprintf(buffer, sizeof buffer, "content of %d\n", i);
		check(write(fd, buffer, length) == length, "write");
		close(fd);
		took(start);
	}
	if (directory >= 0)
		close(directory);
}

static int seen(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)path, (void)status, (void)place;
	if (type == FTW_NS || type == FTW_DNR)
		failures++;
	time_count++;
	return 0;
}

/* Looks at everything, as find does, so that the kernel holds it. */
static void walk(void)
{
	check(nftw(".", seen, WALK_DESCRIPTORS, FTW_PHYS) == 0, "walk");
}

static void create(int count)
{
	for (int i = 0; i < count; i++) {
		double start = now_micros();
		int fd = open(name_of("f", i), O_CREAT | O_EXCL | O_WRONLY, 0644);
		check(fd >= 0, "create");
		close(fd);
		took(start);
	}
}

/* In an order that is none; forgotten names are asked for anew. */
static void stat_all(int count)
{
	struct stat status;
	for (int i = 0; i < count; i++) {
		int which = (int)((i * 2654435761ULL) % count);
		double start = now_micros();
		check(stat(name_of("f", which), &status) == 0, "stat");
		took(start);
	}
}

static void unlink_all(int count)
{
	for (int i = 0; i < count; i++) {
		double start = now_micros();
		check(unlink(name_of("f", i)) == 0, "unlink");
		took(start);
	}
}

static void list(void)
{
	DIR *directory = opendir(".");
	check(directory != NULL, "opendir");
	for (;;) {
		double start = now_micros();
		if (readdir(directory) == NULL)
			break;
		took(start);
	}
	closedir(directory);
}

/* Holds files open, every other one without a name; what was written is read back before they are closed. */
static void hold(int count)
{
	struct rlimit limit = {count + 64, count + 64};
	check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "more open files");
	int *fds = malloc(count * sizeof *fds);
	for (int i = 0; i < count; i++) {
		double start = now_micros();
		fds[i] = open(name_of("h", i), O_CREAT | O_EXCL | O_RDWR, 0644);
		check(fds[i] >= 0, "create");
		int length = snprintf(buffer, sizeof buffer, "held %d", i);
		check(write(fds[i], buffer, length) == length, "write");
		if (i % 2 == 1)
			check(unlink(name_of("h", i)) == 0, "unlink");
		took(start);
	}
	printf("ready\n");
	fflush(stdout);
	while (read(0, buffer, sizeof buffer) > 0)
		;
	for (int i = 0; i < count; i++) {
		char expected[32];
		int length = snprintf(expected, sizeof expected, "held %d", i);
		if (pread(fds[i], buffer, sizeof buffer, 0) != length || memcmp(buffer, expected, length) != 0)
			failures++;
		close(fds[i]);
	}
}

/* A client among many, in a directory of its own: every kind of call, and what was written must be read. */
static void mixed(int milliseconds, int seed)
{
	unsigned int state = seed;
	size_t lengths[MIXED_FILES] = {0};
	char there[MIXED_FILES] = {0};
	struct stat status;
	const char *own = name_of("client", seed);
	check(mkdir(own, 0755) == 0 && chdir(own) == 0, own);
	memset(buffer, 'a' + seed % 26, sizeof buffer);
	for (double end = now_micros() + milliseconds * 1e3; now_micros() < end;) {
		int i = rand_r(&state) % MIXED_FILES;
		int what = rand_r(&state) % 10;
		double start = now_micros();
		if (!there[i] || what < 3) {
			size_t length = rand_r(&state) % MIXED_BYTES_MAX;
			int fd = open(name_of("m", i), O_CREAT | O_TRUNC | O_WRONLY, 0644);
			if (fd < 0 || write(fd, buffer, length) != (ssize_t)length)
				failures++;
			if (what == 0 && fsync(fd) != 0)
				failures++;
			close(fd);
			lengths[i] = length;
			there[i] = 1;
		} else if (what == 3) {
			failures += unlink(name_of("m", i)) != 0;
			there[i] = 0;
		} else if (what == 4) {
			failures += rename(name_of("m", i), "moved") != 0 || rename("moved", name_of("m", i)) != 0;
		} else if (what == 5) {
			DIR *directory = opendir(".");
			failures += directory == NULL;
			while (directory != NULL && readdir(directory) != NULL)
				;
			if (directory != NULL)
				closedir(directory);
		} else if (what < 8) {
			failures += stat(name_of("m", i), &status) != 0 || status.st_size != (off_t)lengths[i];
		} else {
			static char got[MIXED_BYTES_MAX];
			int fd = open(name_of("m", i), O_RDONLY);
			failures += fd < 0 || read(fd, got, sizeof got) != (ssize_t)lengths[i] || memcmp(got, buffer, lengths[i]) != 0;
			close(fd);
		}
		took(start);
	}
}

/* Attributes of a file again and again, not from the kernel's cache: how long one waits while others work. */
static void probe(void)
{
	struct statx status;
	struct pollfd over = {.fd = 0, .events = POLLIN};
	while (poll(&over, 1, 0) == 0) {
		double start = now_micros();
		check(statx(AT_FDCWD, "probe", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status) == 0, "statx");
		took(start);
		usleep(PROBE_EVERY_MICROS);
	}
}

/* New content, none of it alike, in one file. */
static void stream(int mebibytes)
{
	unsigned long long state = now_micros();
	int fd = open("stream", O_CREAT | O_TRUNC | O_WRONLY, 0644);
	check(fd >= 0, "create");
	for (int i = 0; i < mebibytes; i++) {
		for (size_t at = 0; at < sizeof buffer; at += sizeof state) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			memcpy(buffer + at, &state, sizeof state);
		}
		double start = now_micros();
		check(write(fd, buffer, sizeof buffer) == sizeof buffer, "write");
		took(start);
	}
	check(fsync(fd) == 0, "fsync");
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: load DIRECTORY tree|walk|create|stat|list|unlink|hold|mixed|probe|stream COUNT [SEED]\n");
		return 2;
	}
	const char *load = argv[2];
	int count = atoi(argv[3]);
	check(chdir(argv[1]) == 0, argv[1]);
	double start = now_micros();
	if (strcmp(load, "tree") == 0)
		tree(count);
	else if (strcmp(load, "walk") == 0)
		walk();
	else if (strcmp(load, "create") == 0)
		create(count);
	else if (strcmp(load, "stat") == 0)
		stat_all(count);
	else if (strcmp(load, "list") == 0)
		list();
	else if (strcmp(load, "unlink") == 0)
		unlink_all(count);
	else if (strcmp(load, "hold") == 0)
		hold(count);
	else if (strcmp(load, "mixed") == 0)
		mixed(count, argc > 4 ? atoi(argv[4]) : 0);
	else if (strcmp(load, "stream") == 0)
		stream(count);
	else
		probe();
	double seconds = (now_micros() - start) / 1e6;
	if (times != NULL)
		qsort(times, time_count, sizeof *times, by_value);
	printf("{\"count\":%zu,\"failures\":%zu,\"seconds\":%.3f", time_count, failures, seconds);
	if (times != NULL)
		printf(",\"p50\":%.1f,\"p99\":%.1f,\"worst\":%.1f", quantile(0.5), quantile(0.99), quantile(1));
	printf("}\n");
	return 0;
}
