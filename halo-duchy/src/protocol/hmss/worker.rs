//! The workers: seeds change hands, shares are added up, masked, hidden among noise and put into a secret order.

use std::collections::BTreeMap;

use halo_crypto::share::{self, BucketShuffle, Generator, Modulus, SEED_BYTES, Seed, ShareError, Uniform};
use rand_core::Rng;
use zeroize::Zeroizing;

use super::super::record::{Reader, for_each_chunk};
use super::super::stream::{Purpose, StepRandomness, below};
use super::super::{Body, Description, Message, Origin, ProtocolError, Received, State, Step, Workspace};
use super::{CHUNK_CELLS, Duchy, Outcome, Parameters, Requisition, Role, Variant};

/// Uploads that are read side by side at most; of more, the sums are held in a vector.
const OPEN_UPLOADS: usize = 16;
/// Version of the message between the workers; its first byte.
const CODEC_VERSION: u8 = 1;
/// The longest message between the workers that is read, in bytes: ids and ciphertexts of a thousand publishers and more.
pub const MAX_SHUFFLE_INPUT: u64 = 16 << 20;

impl Duchy {
    /// Share shuffle, setup phase: the own seed, and the publishers' encrypted seeds that are for the other worker.
    pub(super) fn setup(
        &self,
        requisitions: &[Requisition],
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step<Outcome>, ProtocolError> {
        let mut seen = std::collections::BTreeSet::new();
        for requisition in requisitions {
            let refuse = |reason: &str| {
                Err(ProtocolError::BadShare { requisition: requisition.id.clone(), reason: reason.to_owned() })
            };
            if !self.parameters.requisitions.contains(&requisition.id) {
                return refuse("it is none of the computation's");
            }
            if !seen.insert(&requisition.id) {
                return refuse("it is there twice");
            }
        }
        let consumed = self.seat.consumed_at_start(&history);
        let seed = self.own_seed(&consumed);
        let mut bytes = Zeroizing::new(vec![CODEC_VERSION]);
        bytes.extend_from_slice(seed.expose());
        bytes.extend_from_slice(&(requisitions.len() as u32).to_be_bytes());
        for requisition in requisitions {
            for field in [requisition.id.as_bytes(), &requisition.encrypted_seed] {
                bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
                bytes.extend_from_slice(field);
            }
        }
        let mut body = workspace.create(1)?;
        body.write(&bytes)?;
        let description = Description::ShuffleInput;
        let message = Message { to: self.peer().clone(), description, body: body.finish()? };
        Ok(self.seat.wait(description, self.slots(description), consumed, Vec::new(), vec![message]))
    }

    /// The seed that this worker has sent; `consumed` is what its first step consumed.
    fn own_seed(&self, consumed: &[u8; 32]) -> Seed {
        let mut bytes = Zeroizing::new([0; SEED_BYTES]);
        self.seat
            .randomness(Description::ShuffleInput, *consumed)
            .stream(Purpose::CommonSeed)
            .rng(0)
            .fill_bytes(&mut *bytes);
        Seed::new(halo_crypto::secret::Secret::new(*bytes))
    }

    /// Share shuffle, shuffle phase. The order of what is drawn from the common seed is part of the protocol: masks (reach
    /// only), the two vectors that hide the noise, the seed of the shuffle.
    pub(super) fn shuffle(
        &self,
        state: &State,
        requisitions: &[Requisition],
        received: &Received,
        randomness: &StepRandomness,
        workspace: &dyn Workspace,
    ) -> Result<Step<Outcome>, ProtocolError> {
        let modulus = self.parameters.modulus()?;
        let (peer_seed, relayed) = read_shuffle_input(&self.parameters, received)?;
        let mut generator = self.own_seed(&state.history).common(&peer_seed).generator();
        let shares = || self.shares(requisitions, &relayed, received);
        let length = self.parameters.cells as usize + 2 * self.noise_cells() as usize;
        let cells = match (self.parameters.variant, self.parameters.counts_frequency()) {
            // Nothing is masked, so the order is known before the first sum is, and each goes to its place at once.
            (Variant::Native, true) => {
                let noise = self.noise(modulus, &mut generator, randomness)?;
                let mut shuffle = BucketShuffle::new(&order(&mut generator), length);
                self.add_up(modulus, shares()?, workspace, |sums| shuffle.push(sums))?;
                noise.iter().for_each(|vector| shuffle.push(vector));
                shuffle.finish()
            }
            (variant, counts_frequency) => {
                let mut cells = Zeroizing::new(Vec::with_capacity(length));
                self.add_up(modulus, shares()?, workspace, |sums| cells.extend_from_slice(sums))?;
                if !counts_frequency {
                    generator.mask(modulus, &mut cells).map_err(internal)?;
                }
                let noise = self.noise(modulus, &mut generator, randomness)?;
                noise.iter().for_each(|vector| cells.extend_from_slice(vector));
                let order = order(&mut generator);
                if variant == Variant::Native {
                    let mut shuffle = BucketShuffle::new(&order, length);
                    shuffle.push(&cells);
                    cells = shuffle.finish();
                } else {
                    share::shuffle(&order, &mut cells);
                }
                cells
            }
        };
        let mut body = workspace.create(1)?;
        cells.chunks(CHUNK_CELLS).try_for_each(|chunk| body.write(chunk))?;
        let description = Description::AggregationInput;
        let message = Message { to: self.roles.aggregator.clone(), description, body: body.finish()? };
        Ok(Step::Done { output: None, outbox: vec![message] })
    }

    /// One share of every requisition: its own here, or the seed that the peer has passed on.
    fn shares<'a>(
        &'a self,
        requisitions: &'a [Requisition],
        relayed: &BTreeMap<String, Vec<u8>>,
        received: &Received,
    ) -> Result<Shares<'a>, ProtocolError> {
        let mut ids: Vec<&String> = self.parameters.requisitions.iter().collect();
        ids.sort_unstable();
        let mut shares = Shares { uploads: Vec::new(), generators: Vec::new() };
        for id in ids {
            let own = requisitions.iter().position(|requisition| requisition.id == *id);
            match (own, relayed.get(id)) {
                (Some(position), None) => {
                    let share = &requisitions[position].share;
                    let (found, due) = (share.records(), self.parameters.cells);
                    if found != due {
                        return Err(refuse(id, format!("it has {found} cells where {due} are due")));
                    }
                    shares.uploads.push(Upload { id, share, position });
                }
                (None, Some(ciphertext)) => {
                    let seed = (self.open_seed)(id, ciphertext).map_err(|reason| ProtocolError::BadSeed {
                        requisition: id.clone(),
                        from: received.slot.from.clone(),
                        reason,
                    })?;
                    shares.generators.push(seed.generator());
                }
                (Some(_), Some(_)) => {
                    return Err(bad_input(received, format!("it passes on {id}, which was fulfilled here")));
                }
                (None, None) => return Err(refuse(id, "neither worker has it".to_owned())),
            }
        }
        Ok(shares)
    }

    /// Share shuffle, shuffle phase: the sums of all shares, a chunk at a time, so that a chunk stays in the cache until
    /// `take` has it. What `take` was given may only leave when this has succeeded.
    fn add_up(
        &self,
        modulus: Modulus,
        mut shares: Shares<'_>,
        workspace: &dyn Workspace,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), ProtocolError> {
        // Checked to fit when the parameters were.
        let cells = self.parameters.cells as usize;
        let uploads = shares.uploads.as_slice();
        let (uploads, before) = uploads.split_at(uploads.len().min(OPEN_UPLOADS));
        // Of the uploads that are too many to be open at once.
        let mut sums_before = Zeroizing::new(Vec::new());
        for uploads in before.chunks(OPEN_UPLOADS) {
            sums_before.resize(cells, 0);
            let mut reader = open(uploads)?;
            for sums in sums_before.chunks_mut(CHUNK_CELLS) {
                add_next(modulus, sums, uploads, &mut reader, workspace)?;
            }
            reader.next_chunks(CHUNK_CELLS)?;
        }
        let mut reader = open(uploads)?;
        let mut seeds: Vec<Uniform<'_>> =
            shares.generators.iter_mut().map(|generator| generator.uniform_parts(modulus, cells)).collect();
        let mut chunk = Zeroizing::new(vec![0; CHUNK_CELLS.min(cells)]);
        for first in (0..cells).step_by(CHUNK_CELLS) {
            let sums = &mut chunk[..CHUNK_CELLS.min(cells - first)];
            match sums_before.get(first..first + sums.len()) {
                Some(before) => sums.copy_from_slice(before),
                None => sums.fill(0),
            }
            seeds.iter_mut().try_for_each(|numbers| numbers.add(sums)).map_err(internal)?;
            add_next(modulus, sums, uploads, &mut reader, workspace)?;
            take(sums);
        }
        // There are no more, and digests are right.
        reader.next_chunks(CHUNK_CELLS)?;
        Ok(())
    }

    /// Share shuffle, shuffle phase, noise: cells of the first worker's noise, then of the second's, each shared between
    /// both: whoever makes it subtracts what the common seed gives, and the other adds that.
    fn noise(
        &self,
        modulus: Modulus,
        generator: &mut Generator,
        randomness: &StepRandomness,
    ) -> Result<[Zeroizing<Vec<u8>>; 2], ProtocolError> {
        let length = self.noise_cells() as usize;
        let mut own = Zeroizing::new(vec![0; length]);
        self.draw_noise(modulus, randomness, &mut own)?;
        let mut hidden = [Zeroizing::new(vec![0; length]), Zeroizing::new(vec![0; length])];
        hidden.iter_mut().for_each(|vector| generator.uniform(modulus, vector));
        let mine = if self.role == Role::First { 0 } else { 1 };
        share::subtract(modulus, &mut own, &hidden[mine]).map_err(internal)?;
        hidden[mine] = own;
        Ok(hidden)
    }

    /// Share shuffle, the noise of one worker (protocols 3.5). With frequencies: so many cells hold 0, 1, …, M, and the
    /// rest the sentinel q − 1. Reach only: so many hold a random number that is not 0, and the rest 0.
    fn draw_noise(&self, modulus: Modulus, randomness: &StepRandomness, out: &mut [u8]) -> Result<(), ProtocolError> {
        let Some(noise) = &self.noise else { return Ok(()) };
        let counts = randomness.stream(Purpose::NoiseCount);
        let zeros = noise.reach.sample(&mut counts.rng(0));
        let mut rest = out;
        let mut put = |count: u64, value: &mut dyn FnMut() -> u8| {
            let taken = std::mem::take(&mut rest);
            let split = usize::try_from(count).ok().and_then(|count| taken.split_at_mut_checked(count));
            let (cells, behind) =
                split.ok_or_else(|| ProtocolError::Noise("more noise was drawn than its range allows".to_owned()))?;
            cells.iter_mut().for_each(|cell| *cell = value());
            rest = behind;
            Ok::<_, ProtocolError>(())
        };
        let Some(frequency) = &noise.frequency else {
            let mut random = randomness.stream(Purpose::NoiseMessage).rng(0);
            let others = u64::from(modulus.get()) - 1;
            put(zeros, &mut || (below(others, &mut random) + 1) as u8)?;
            rest.fill(0);
            return Ok(());
        };
        put(zeros, &mut || 0)?;
        for count in 1..=self.parameters.combined_frequency() {
            let drawn = frequency.sample(&mut counts.rng(count));
            put(drawn, &mut || count as u8)?;
        }
        rest.fill((modulus.get() - 1) as u8);
        Ok(())
    }
}

/// The seed of the shuffle: what the common seed gives next.
fn order(generator: &mut Generator) -> Seed {
    let mut order = Zeroizing::new([0; SEED_BYTES]);
    generator.bytes(&mut *order);
    Seed::new(halo_crypto::secret::Secret::new(*order))
}

/// One share of every requisition.
struct Shares<'a> {
    /// What was uploaded here.
    uploads: Vec<Upload<'a>>,
    /// Of the seeds that the peer has passed on.
    generators: Vec<Generator>,
}

/// A share that a publisher has given to this worker.
struct Upload<'a> {
    id: &'a str,
    share: &'a Body,
    /// Its place among the requisitions.
    position: usize,
}

impl Upload<'_> {
    fn origin(&self) -> Origin {
        Origin::Requisition(self.position)
    }
}

fn open(uploads: &[Upload<'_>]) -> Result<Reader, ProtocolError> {
    Reader::open(uploads.iter().map(|upload| (upload.share, upload.origin())), 1)
}

/// Adds the next cells of every upload, as many as there are sums.
fn add_next(
    modulus: Modulus,
    sums: &mut [u8],
    uploads: &[Upload<'_>],
    reader: &mut Reader,
    workspace: &dyn Workspace,
) -> Result<(), ProtocolError> {
    if workspace.is_cancelled() {
        return Err(ProtocolError::Cancelled);
    }
    reader.next_chunks(sums.len())?;
    uploads.iter().zip(reader.chunks()).try_for_each(|(upload, chunk)| {
        share::add(modulus, sums, chunk.bytes)
            .map_err(|error| refuse(upload.id, format!("from cell {} on: {error}", chunk.first)))
    })
}

fn refuse(id: &str, reason: String) -> ProtocolError {
    ProtocolError::BadShare { requisition: id.to_owned(), reason }
}

fn bad_input(received: &Received, reason: String) -> ProtocolError {
    ProtocolError::BadBody { origin: Origin::Duchy(received.slot.from.clone()), reason }
}

/// Reads the other worker's seed and what it passes on.
pub(super) fn read_shuffle_input(
    parameters: &Parameters,
    received: &Received,
) -> Result<(Seed, BTreeMap<String, Vec<u8>>), ProtocolError> {
    let bytes = Zeroizing::new(read_all(&received.body, &Origin::Duchy(received.slot.from.clone()))?);
    let refuse = |reason: &str| bad_input(received, reason.to_owned());
    let mut reader = Fields(&bytes);
    let early = || refuse("it ends too early");
    if reader.take(1).ok_or_else(early)? != [CODEC_VERSION] {
        return Err(refuse("its version is not known"));
    }
    let seed = reader.take(SEED_BYTES).ok_or_else(early)?;
    let seed = Seed::from_slice(seed).map_err(|error| refuse(&error.to_string()))?;
    let count = reader.number().ok_or_else(early)?;
    let mut relayed = BTreeMap::new();
    for _ in 0..count {
        let id = reader.field().ok_or_else(early)?;
        let id = std::str::from_utf8(id).map_err(|_| refuse("an id is not UTF-8"))?.to_owned();
        let ciphertext = reader.field().ok_or_else(early)?.to_vec();
        if !parameters.requisitions.contains(&id) {
            return Err(refuse("it passes on a requisition that is none of the computation's"));
        }
        if relayed.insert(id, ciphertext).is_some() {
            return Err(refuse("it passes one requisition on twice"));
        }
    }
    if reader.0.is_empty() { Ok((seed, relayed)) } else { Err(refuse("bytes are left over")) }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    /// Bytes with their length in front.
    fn field(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }
}

/// All bytes of a short body, checked against its header.
fn read_all(body: &Body, origin: &Origin) -> Result<Vec<u8>, ProtocolError> {
    if body.records() > MAX_SHUFFLE_INPUT {
        let reason = format!("it has {} bytes, more than {MAX_SHUFFLE_INPUT}", body.records());
        return Err(ProtocolError::BadBody { origin: origin.clone(), reason });
    }
    let mut bytes = Vec::new();
    for_each_chunk(body, 1, origin, CHUNK_CELLS, |chunk| {
        bytes.extend_from_slice(chunk.bytes);
        Ok(())
    })?;
    Ok(bytes)
}

/// Vectors made here fit each other and the modulus; if they do not, this is a defect.
fn internal(error: ShareError) -> ProtocolError {
    ProtocolError::Inconsistent(error.to_string())
}
