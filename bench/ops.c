/*
 * The operations that bench.ts measures, without the start-up of a program in the figures.
 *
 *   ops DIRECTORY OPERATION COUNT
 *
 * prints the time of one operation in microseconds; of writing and reading, where COUNT is in MiB,
 * of one MiB. `create` makes the files that `stat`, `open` and `unlink` use, `write` the one that
 * `read` does. `forget` takes every file of the directory out of the page cache.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SMALL_BYTES 4096
#define LARGE_BYTES (1 << 20)
#define STAT_ROUNDS 20
#define OPEN_ROUNDS 5

static char buffer[LARGE_BYTES];

static void check(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "ops: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_micros(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

static const char *file_name(int i)
{
	static char name[32];
	snprintf(name, sizeof name, "file-%07d", i);
	return name;
}

static void create(int count)
{
	for (int i = 0; i < count; i++) {
		int fd = open(file_name(i), O_CREAT | O_EXCL | O_WRONLY, 0644);
		check(fd >= 0, "create");
		check(write(fd, buffer, SMALL_BYTES) == SMALL_BYTES, "write");
		close(fd);
	}
}

static void stat_all(int count)
{
	struct stat status;
	for (int i = 0; i < count; i++)
		check(stat(file_name(i), &status) == 0, "stat");
}

static void open_all(int count)
{
	for (int i = 0; i < count; i++) {
		int fd = open(file_name(i), O_RDONLY);
		check(fd >= 0, "open");
		check(read(fd, buffer, SMALL_BYTES) == SMALL_BYTES, "read");
		close(fd);
	}
}

static void unlink_all(int count)
{
	for (int i = 0; i < count; i++)
		check(unlink(file_name(i)) == 0, "unlink");
}

/* Every MiB different and none compressible, as a store that deduplicates might like it otherwise. */
static void fill_buffer(unsigned long long seed)
{
	unsigned long long state = seed * 0x9e3779b97f4a7c15ULL + 1;
	for (size_t i = 0; i < LARGE_BYTES; i += sizeof state) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		memcpy(buffer + i, &state, sizeof state);
	}
}

/* Returns what filling the buffer took, which is none of the file system's time. */
static double write_large(int mebibytes)
{
	double filling = 0;
	int fd = open("large", O_CREAT | O_TRUNC | O_WRONLY, 0644);
	check(fd >= 0, "create");
	for (int i = 0; i < mebibytes; i++) {
		double before = now_micros();
		fill_buffer(now_micros() + i);
		filling += now_micros() - before;
		check(write(fd, buffer, LARGE_BYTES) == LARGE_BYTES, "write");
	}
	check(fsync(fd) == 0, "fsync");
	close(fd);
	return filling;
}

static void read_large(int mebibytes)
{
	int fd = open("large", O_RDONLY);
	check(fd >= 0, "open");
	for (int i = 0; i < mebibytes; i++)
		check(read(fd, buffer, LARGE_BYTES) == LARGE_BYTES, "read");
	close(fd);
}

static void forget_all(void)
{
	DIR *directory = opendir(".");
	check(directory != NULL, "opendir");
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
		int fd = open(entry->d_name, O_RDONLY);
		if (fd < 0)
			continue;
		fdatasync(fd); /* only what is stored can be forgotten */
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
	closedir(directory);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: ops DIRECTORY create|stat|open|unlink|write|read|forget COUNT\n");
		return 2;
	}
	const char *operation = argv[2];
	int count = atoi(argv[3]);
	int rounds = 1;
	double apart = 0;
	check(chdir(argv[1]) == 0, argv[1]);
	/* What these look at shall be in the caches. */
	if (strcmp(operation, "stat") == 0) {
		stat_all(count);
		rounds = STAT_ROUNDS;
	} else if (strcmp(operation, "open") == 0) {
		open_all(count);
		rounds = OPEN_ROUNDS;
	}
	double start = now_micros();
	for (int round = 0; round < rounds; round++) {
		if (strcmp(operation, "create") == 0)
			create(count);
		else if (strcmp(operation, "stat") == 0)
			stat_all(count);
		else if (strcmp(operation, "open") == 0)
			open_all(count);
		else if (strcmp(operation, "unlink") == 0)
			unlink_all(count);
		else if (strcmp(operation, "write") == 0)
			apart = write_large(count);
		else if (strcmp(operation, "read") == 0)
			read_large(count);
		else
			forget_all();
	}
	printf("%.4f\n", (now_micros() - start - apart) / rounds / count);
	return 0;
}
