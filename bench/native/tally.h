/* What the load generator counts, and the one line of JSON it prints.
 *
 * Every latency is recorded, so that the percentiles are those of all answers and not of a sample or of the
 * buckets of a histogram. Processor time of the broker is read here, at the very edges of the measured span:
 * whoever started the processes could only guess when those were.
 */
#ifndef VOICEBUS_BENCH_TALLY_H
#define VOICEBUS_BENCH_TALLY_H

#include "ends.h"

#include <dirent.h>

enum { CODE_BYTES = 40 };

typedef struct {
    unsigned long sent, answered, in_span; /* in_span: answers that came between the edges */
    unsigned long accepted, failed, strays, wrong_bytes, out_of_order, missing;
    unsigned long received_bundles, received_in_bundles;
    uint64_t received_bytes;
    char first_code[CODE_BYTES];
    int64_t *latencies_ns;
    size_t latencies, room;
} tally_t;

HELPER void tally_latency(tally_t *tally, int64_t latency_ns) {
    if (tally->latencies == tally->room) {
        tally->room = tally->room == 0 ? 1 << 16 : 2 * tally->room;
        tally->latencies_ns = grown(tally->latencies_ns, tally->room * sizeof *tally->latencies_ns);
    }
    tally->latencies_ns[tally->latencies++] = latency_ns;
}

HELPER int earlier(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

/* The smallest latency that this share of all does not exceed, in microseconds; they must be sorted. */
HELPER double share_us(const tally_t *tally, double share) {
    if (tally->latencies == 0)
        return 0;
    double rank = share * (double)tally->latencies;
    size_t at = (size_t)rank;
    if ((double)at == rank && at > 0)
        at--;
    if (at >= tally->latencies)
        at = tally->latencies - 1;
    return (double)tally->latencies_ns[at] / 1000;
}

/* Processor time of all threads of a process, user and system; 0 if it is not to be watched. */
HELPER int64_t cpu_ns(long pid) {
    if (pid == 0)
        return 0;
    char path[320];
    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        die("the process %ld is gone", pid);
    int64_t total = 0;
    for (const struct dirent *task; (task = readdir(tasks)) != NULL;) {
        if (task->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", pid, task->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue; /* a thread that ended just now */
        long long used = 0;
        if (fscanf(file, "%lld", &used) != 1)
            die("%s cannot be read", path);
        total += used;
        fclose(file);
    }
    closedir(tasks);
    return total;
}

HELPER unsigned long tally_errors(const tally_t *tally) {
    return tally->failed + tally->strays + tally->wrong_bytes + tally->out_of_order + tally->missing;
}

HELPER void tally_print(tally_t *tally, double seconds, int64_t used_ns, double sent_per_bundle) {
    if (tally->latencies > 0)
        qsort(tally->latencies_ns, tally->latencies, sizeof *tally->latencies_ns, earlier);
    double per_bundle =
        tally->received_bundles == 0 ? 0 : (double)tally->received_in_bundles / (double)tally->received_bundles;
    printf("{\"sent\": %lu, \"answered\": %lu, \"answers\": %lu, \"seconds\": %.6f, \"rate_per_s\": %.1f, ",
           tally->sent, tally->answered, tally->in_span, seconds, (double)tally->in_span / seconds);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, ", share_us(tally, 0.5),
           share_us(tally, 0.9), share_us(tally, 0.99), share_us(tally, 1));
    printf("\"latencies\": %zu, \"cpu_ns\": %lld, ", tally->latencies, (long long)used_ns);
    printf("\"accepted\": %lu, \"received_bytes\": %llu, ", tally->accepted,
           (unsigned long long)tally->received_bytes);
    printf("\"received_per_bundle\": %.2f, \"sent_per_bundle\": %.2f, ", per_bundle, sent_per_bundle);
    printf("\"failed\": %lu, \"strays\": %lu, \"wrong_bytes\": %lu, \"out_of_order\": %lu, \"missing\": %lu, ",
           tally->failed, tally->strays, tally->wrong_bytes, tally->out_of_order, tally->missing);
    printf("\"errors\": %lu, \"first_code\": \"%s\"}\n", tally_errors(tally), tally->first_code);
}

#endif
