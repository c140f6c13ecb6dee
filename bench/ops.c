/*
 * System calls that workloads measure, without the start-up of a program in the figures.
 *
 *   ops DIRECTORY OPERATION COUNT [LIST]
 *
 * prints the time of one operation in microseconds; of writing and reading, where COUNT is in MiB,
 * of one MiB. `create` makes the files that `unlink` uses, `write` the one that `read` does. `stat` and
 * `open` go through the names in the file LIST, one a line; `append` adds to a file of its own.
 */
#define _GNU_SOURCE
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
#define APPEND_BYTES 128
#define WARM_ROUNDS 3

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

static char **names;

static void read_names(const char *list, int count)
{
	FILE *file = fopen(list, "r");
	check(file != NULL, list);
	names = calloc(count, sizeof *names);
	check(names != NULL, "calloc");
	char line[4097];
	for (int i = 0; i < count; i++) {
		check(fgets(line, sizeof line, file) != NULL, "a list with too few names");
		line[strcspn(line, "\n")] = 0;
		names[i] = strdup(line);
		check(names[i] != NULL, "strdup");
	}
	fclose(file);
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
		check(stat(names[i], &status) == 0, names[i]);
}

static void open_all(int count)
{
	for (int i = 0; i < count; i++) {
		int fd = open(names[i], O_RDONLY);
		check(fd >= 0, names[i]);
		check(read(fd, buffer, SMALL_BYTES) >= 0, names[i]);
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

static void append(int count)
{
	int fd = open("appended", O_CREAT | O_APPEND | O_WRONLY, 0644);
	check(fd >= 0, "create");
	for (int i = 0; i < count; i++)
		check(write(fd, buffer, APPEND_BYTES) == APPEND_BYTES, "append");
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: ops DIRECTORY create|stat|open|unlink|write|read|append COUNT [LIST]\n");
		return 2;
	}
	const char *operation = argv[2];
	int count = atoi(argv[3]);
	int rounds = 1;
	double apart = 0;
	check(chdir(argv[1]) == 0, argv[1]);
	if (argc == 5)
		read_names(argv[4], count);
	/* What these look at shall be in the caches. */
	if (strcmp(operation, "stat") == 0) {
		stat_all(count);
		rounds = WARM_ROUNDS;
	} else if (strcmp(operation, "open") == 0) {
		open_all(count);
		rounds = WARM_ROUNDS;
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
			append(count);
	}
	printf("%.4f\n", (now_micros() - start - apart) / rounds / count);
	return 0;
}
