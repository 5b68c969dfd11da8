/* SPDX-License-Identifier: Apache-2.0 */
/* site/rendezvous: control.json, the key of the cells, our address. */
#include "site/rendezvous/rendezvous.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"

static void text_write(const char *dir, const char *name, const char *text)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_replace(path, text, strlen(text), &err), &err);
    free(path);
}

static void test_publish(void)
{
    char *dir = scratch_make();
    fm_link_zmq_keys_t keys;
    fm_rendezvous_t at = {0};
    fm_error_t err = {0};

    CU_ASSERT(fm_rendezvous_read(dir, &at, &err) == FM_ERR_NOT_FOUND);
    FM_ASSERT_OK(fm_link_zmq_keys_make(&keys, &err), &err);
    fm_rendezvous_t said = {.instance = 7,
                            .endpoint = (char *)(uintptr_t) "tcp://10.0.0.1:5",
                            .host = (char *)(uintptr_t) "node1",
                            .pid = 42,
                            .started_ns = 9};
    memcpy(said.public_key, keys.public_key, sizeof(said.public_key));
    FM_ASSERT_OK(fm_rendezvous_publish(dir, &said, &err), &err);
    FM_ASSERT_OK(fm_rendezvous_read(dir, &at, &err), &err);
    CU_ASSERT(at.instance == 7 && at.pid == 42 && at.started_ns == 9);
    CU_ASSERT_STRING_EQUAL(at.endpoint, said.endpoint);
    CU_ASSERT_STRING_EQUAL(at.host, said.host);
    CU_ASSERT_STRING_EQUAL(at.public_key, said.public_key);
    fm_rendezvous_fini(&at);

    /* only its own instance takes it away */
    fm_rendezvous_withdraw(dir, 6);
    FM_ASSERT_OK(fm_rendezvous_read(dir, &at, &err), &err);
    fm_rendezvous_fini(&at);
    fm_rendezvous_withdraw(dir, 7);
    CU_ASSERT(fm_rendezvous_read(dir, &at, &err) == FM_ERR_NOT_FOUND);
    scratch_remove(dir);
}

static void test_damaged(void)
{
    static const char *const texts[] = {
        "", "[]", "{\"v\": 2}", "{\"v\": 1, \"instance\": -1}",
        "{\"v\": 1, \"instance\": 1, \"endpoint\": \"x\", \"host\": \"h\", "
        "\"public_key\": \"short\"}"};
    char *dir = scratch_make();

    for (size_t i = 0; i < FM_COUNT_OF(texts); i++) {
        fm_rendezvous_t at = {0};
        fm_error_t err = {0};
        text_write(dir, "control.json", texts[i]);
        CU_ASSERT(fm_rendezvous_read(dir, &at, &err) == FM_ERR_INVALID);
        CU_ASSERT(strstr(err.text, "control.json") != NULL);
        CU_ASSERT(at.endpoint == NULL);
    }
    scratch_remove(dir);
}

static void test_keys(void)
{
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/keys/cell.key", dir);
    fm_link_zmq_keys_t keys;
    fm_link_zmq_keys_t again;
    struct stat st;
    fm_error_t err = {0};

    CU_ASSERT(fm_rendezvous_keys(dir, false, &keys, &err) == FM_ERR_NOT_FOUND);
    FM_ASSERT_OK(fm_rendezvous_keys(dir, true, &keys, &err), &err);
    FM_ASSERT_OK(fm_rendezvous_keys(dir, true, &again, &err), &err);
    CU_ASSERT_STRING_EQUAL(keys.public_key, again.public_key);
    CU_ASSERT_STRING_EQUAL(keys.secret_key, again.secret_key);
    CU_ASSERT(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600);

    CU_ASSERT_FATAL(chmod(path, 0640) == 0);
    CU_ASSERT(fm_rendezvous_keys(dir, true, &again, &err) == FM_ERR_INVALID);
    CU_ASSERT(strstr(err.text, "chmod 600") != NULL);
    text_write(dir, "keys/cell.key", "nothing\n");
    CU_ASSERT_FATAL(chmod(path, 0600) == 0);
    CU_ASSERT(fm_rendezvous_keys(dir, false, &again, &err) == FM_ERR_INVALID);
    CU_ASSERT(strstr(err.text, "no key pair") != NULL);
    free(path);
    scratch_remove(dir);
}

/* Processes that make it at once agree. */
static void test_race(void)
{
    enum { CHILDREN = 6 };
    char *dir = scratch_make();
    pid_t children[CHILDREN];
    fm_link_zmq_keys_t keys;
    fm_error_t err = {0};
    int gate[2];
    int said[2];

    CU_ASSERT_FATAL(pipe(gate) == 0 && pipe(said) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            char go;
            (void)close(gate[1]);
            ssize_t n = read(gate[0], &go, 1);
            bool good = n == 0 &&
                        fm_rendezvous_keys(dir, true, &keys, &err) >= 0 &&
                        write(said[1], &keys, sizeof(keys)) == sizeof(keys);
            _exit(good ? 0 : 1);
        }
        CU_ASSERT_FATAL(children[i] > 0);
    }
    (void)close(gate[1]);
    fm_link_zmq_keys_t first;
    for (int i = 0; i < CHILDREN; i++) {
        int status = 0;
        CU_ASSERT(waitpid(children[i], &status, 0) == children[i]);
        CU_ASSERT_FATAL(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CU_ASSERT_FATAL(read(said[0], &keys, sizeof(keys)) == sizeof(keys));
        first = i == 0 ? keys : first;
        CU_ASSERT(memcmp(&keys, &first, sizeof(keys)) == 0);
    }
    (void)close(gate[0]);
    (void)close(said[0]);
    (void)close(said[1]);
    scratch_remove(dir);
}

static void test_address(void)
{
    char *address = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_rendezvous_address("lo", &address, &err), &err);
    CU_ASSERT_STRING_EQUAL(address, "127.0.0.1");
    free(address);
    address = NULL;
    CU_ASSERT(fm_rendezvous_address("nosuch0", &address, &err) ==
              FM_ERR_NOT_FOUND);
    CU_ASSERT(address == NULL && strstr(err.text, " lo") != NULL);
    FM_ASSERT_OK(fm_rendezvous_address(NULL, &address, &err), &err);
    CU_ASSERT(strchr(address, '.') != NULL);
    free(address);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"control.json", test_publish},
        {"a damaged one", test_damaged},
        {"keys", test_keys},
        {"keys made at once", test_race},
        {"address", test_address},
    };

    return fm_test_main("site_rendezvous", cases, FM_COUNT_OF(cases));
}
