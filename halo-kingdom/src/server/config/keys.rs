//! The documentation of the configuration file.

/// What every key means; shown by `--help`.
pub const KEYS: &str = r#"The configuration is a TOML file. Relative paths start at its directory; certificates and keys are PEM files.

listen = "127.0.0.1:8443"               address and port to serve on
state_dir = "state"                     directory of the database kingdom.sqlite; a file lock keeps it to one process
measurement_deadline_seconds = 604800   a measurement that has not ended by then is cancelled, unless it brings its own
                                        deadline; default 604800, seven days
maximum_deadline_seconds = 2592000      the longest time that a measurement may take, whatever deadline it brings;
                                        default 2592000, thirty days

[tls]                                   with what the Kingdom shows itself
certificate = "tls.pem"                 certificate chain, its own certificate first
private_key = "tls.key"                 private key of it

The sections of the protocols. A protocol is planned if its section is there, and at least one must be. Impressions,
durations, populations and whatever is asked of one publisher alone are direct; else the first of [trustee],
[hmss_native], [hmss], [rollv2] (reach alone) and [llv2] is taken that every publisher can take part in and that can
compute what is asked. The timeline of a measurement says why which was taken.

[llv2]                                  Liquid Legions v2, computed by all Duchies
aggregator = "aggregator"               id of the Duchy that hands in results
minimum_duchies = 3                     fewer Duchies than this are refused at start; default 2
decay_rate = 12.0                       shape of the sketches: above 1, at most 36; default 12
max_size = 100000                       number of registers of a sketch; default 100000
sampling_indicator_size = 10000000      number of different register keys; default 10000000
noise_mechanism = "discrete_gaussian"   or "geometric", or "none": no noise anywhere, which publishers and Duchies must
                                        allow themselves too; default discrete_gaussian
noise_calibration = "exact"             or "reference"; default exact
honest_contributors = 1                 so many Duchies' noise alone must be enough; default 1
data_provider_noise = { epsilon = 1.0, delta = 1e-9 }        hides the size of a publisher's sketch
blinded_histogram_noise = { epsilon = 1.0, delta = 1e-9 }    hides how many publishers share a register
noise_for_publisher_noise = { epsilon = 1.0, delta = 1e-9 }  hides the publishers' own noise
                                        the three noises are required unless noise_mechanism is "none"

[rollv2]                                reach-only Liquid Legions v2, computed by all Duchies; the keys of [llv2] without
                                        sampling_indicator_size

[hmss]                                  the honest-majority share shuffle as the reference has it
first_worker = "worker1"                ids of three different Duchies
second_worker = "worker2"
aggregator = "aggregator"               hands in results
ring_modulus = 127                      above maximum frequency times publishers, plus 1; for reach alone a prime; from
                                        4 to 256; default 127
noise_mechanism = "discrete_gaussian"   or "geometric", or "none"; default discrete_gaussian
noise_calibration = "exact"             or "reference"; default exact
honest_contributors = 1                 so many workers' noise alone must be enough, 1 or 2; default 1

[hmss_native]                           the share shuffle with one-byte cells; the keys of [hmss] without ring_modulus

[trustee]                               one Duchy's trusted execution environment
duchy = "aggregator"                    id of the Duchy
noise_mechanism = "discrete_gaussian"   or "deterministic": the same data get the same noise; or "none"; default
                                        discrete_gaussian
thresholds = { min_users = 100, min_impressions = 1000 }     smaller results are released as 0; default none

[direct]                                what publishers may do on their own; always possible
noise_mechanisms = ["discrete_gaussian", "geometric"]        what a publisher may choose from, also "none"; the default
                                        is these two

[population]                            whom frequency vectors are over, required for [hmss], [hmss_native] and [trustee]
first = 1                               the lowest and the highest VID that there can be, below 2147483647; it is public
last = 1000000

[[duchies]]                             one table for each Duchy
id = "worker1"                          1 to 63 of a-z, 0-9 and -, the first a letter
root_certificate = "worker1/root.pem"   root of the certificates with which it connects and signs
consent_certificate = { id = "AAAAAAAAAAE", file = "worker1/consent.pem" }
                                        with what it signs; the id, 11 base64url characters, is the one of
                                        duchies/{duchy}/certificates/{id}

[[data_providers]]                      one table for each publisher
id = "AAAAAAAAAAI"                      11 base64url characters, as in dataProviders/{id}
display_name = "news"                   a name for people; default: the id
root_certificate = "news/root.pem"
consent_certificate = { id = "AAAAAAAAAAM", file = "news/consent.pem" }
encryption_public_key = "news/key.bin"  serialized SignedMessage of its EncryptionPublicKey, which the consent
                                        certificate verifies
capabilities = ["hmss", "hmss-native"]  what its software can do, until it says so itself: of hmss, hmss-native, trustee,
                                        no-noise, deterministic-noise

[[measurement_consumers]]               one table for each consumer, with the keys of a publisher except capabilities

At each start, parties that are new or whose entry has changed are stored; removed ones cannot connect any more, and
no new measurement can name them. Certificates and keys that a party has changed through the API are kept until its
entry names another root, certificate or key, and capabilities until its entry states others.
The log goes to the standard error stream; RUST_LOG sets what is logged (default: info)."#;
