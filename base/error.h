/*
 * The one error table. Every function that can fail returns an rf_err_t; each code has one sentence.
 *
 * Rules: the function that first decides an error logs it once; callers pass it up unchanged; outputs are
 * written only on success. RF_ERR_AGAIN is not a failure: it is how a full queue or a pending event answers.
 * Installed as <rackfish/error.h>.
 */
#ifndef RF_BASE_ERROR_H
#define RF_BASE_ERROR_H

#define RF_ERROR_TABLE(X)                                                                                    \
    X(RF_OK, 0, "success")                                                                                   \
    X(RF_ERR_AGAIN, 1, "full or nothing ready now; try again when told there is room")                       \
    X(RF_ERR_INVALID, 2, "an argument is out of its range or makes no sense here")                           \
    X(RF_ERR_NO_MEMORY, 3, "memory that was set aside at start is used up")                                  \
    X(RF_ERR_LIMIT, 4, "a named maximum is reached")                                                         \
    X(RF_ERR_NOT_FOUND, 5, "no such object")                                                                 \
    X(RF_ERR_EXISTS, 6, "an object of that name is there already")                                           \
    X(RF_ERR_PERMISSION, 7, "the caller may not do this")                                                    \
    X(RF_ERR_TIMEOUT, 8, "the deadline passed")                                                              \
    X(RF_ERR_PEER_DEAD, 9, "the peer has died")                                                              \
    X(RF_ERR_CLOSED, 10, "the link or channel is closed")                                                    \
    X(RF_ERR_FENCED, 11, "the link is fenced; nothing more is delivered on it")                              \
    X(RF_ERR_PROTOCOL, 12, "the peer sent bytes that the protocol does not allow")                           \
    X(RF_ERR_VERSION, 13, "the peer speaks another major version")                                           \
    X(RF_ERR_AUTH, 14, "the peer does not hold the cluster's key")                                           \
    X(RF_ERR_NOT_SUPPORTED, 15, "this medium or build does not offer the operation")                         \
    X(RF_ERR_NO_QUORUM, 16, "the machine cannot agree on a change now: its quorum is out of reach")          \
    X(RF_ERR_UNKNOWN_OUTCOME, 17, "the operation may or may not have taken effect")                          \
    X(RF_ERR_SESSION, 18, "the session has ended; the operation was not executed")                           \
    X(RF_ERR_OS, 19, "the host's kernel refused; errno says why")                                            \
    X(RF_ERR_CONFIG, 20, "the configuration is wrong")                                                       \
    X(RF_ERR_TRUNCATED, 21, "the buffer is too small for the message")                                       \
    X(RF_ERR_CANCELLED, 22, "the operation was cancelled")                                                   \
    X(RF_ERR_BUSY, 23, "the object is in use")                                                               \
    X(RF_ERR_EXEC, 24, "the program could not be started")                                                   \
    X(RF_ERR_NO_MACHINE, 25, "no machine of that name runs here")                                            \
    X(RF_ERR_FORMING, 26, "the machine is still forming")                                                    \
    X(RF_ERR_LOST, 27,                                                                                       \
      "the machine has lost the majority of its voters for good; 'rackfish down' on every host and then "    \
      "'rackfish up' form a new one")

typedef enum rf_err {
#define RF_ERROR_ENUM(name, value, text) name = value,
    RF_ERROR_TABLE(RF_ERROR_ENUM)
#undef RF_ERROR_ENUM
        RF_ERR_COUNT
} rf_err_t;

#ifdef __cplusplus
extern "C" {
#endif

/* The sentence for `err`; never NULL, also for values outside the table. Static storage. Any thread. */
const char *rf_err_text(rf_err_t err);

/* The identifier, "RF_ERR_TIMEOUT"; never NULL. Static storage. Any thread. */
const char *rf_err_name(rf_err_t err);

#ifdef __cplusplus
}
#endif

#endif
