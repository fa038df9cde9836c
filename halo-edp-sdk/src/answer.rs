//! Making the answer to a requisition, the same way for every protocol.
//!
//! [`read`] counts the impressions as the requisition asks for; [`Work::spool`] encrypts, shares or signs what was
//! counted, into a body that is kept until it is handed in. What cannot be drawn twice is drawn there, once.
//!
//! ```no_run
//! use halo_edp_sdk::{answer::{self, Source}, progress::Unobserved};
//! # use halo_edp_sdk::{Error, requisition::OpenedRequisition, sign::Signer, spool::{Spool, Spooled}};
//! # use rand_core::CryptoRng;
//! # fn example(
//! #     opened: &OpenedRequisition, signer: &Signer, spool: &Spool, rng: &mut impl CryptoRng,
//! # ) -> Result<Spooled, Error> {
//! // What was made before is sent again, byte for byte.
//! if let Some(spooled) = spool.find(&opened.spool_name(), &opened.binding)? {
//!     return Ok(spooled);
//! }
//! let source = Source { events: "news.parquet".as_ref(), seconds_per_impression: None };
//! let work = answer::read(opened, &source, &mut Unobserved)?;
//! println!("{} impressions", work.impressions());
//! work.spool(Some(signer), spool, &mut Unobserved, rng)
//! # }
//! ```

use std::path::Path;

use halo_core::{pb::api::measurement::Result as MeasurementResult, wire::type_name};
use prost::Message;
use rand_core::CryptoRng;

use crate::{
    BodyError, Error,
    direct::{self, Ask, Audience},
    encrypt,
    progress::Observer,
    requisition::{Asked, DirectTask, OpenedRequisition, Question, SealTask, ShareTask, SketchTask},
    seal::{self, Sealing},
    share,
    sign::Signer,
    sketch::{self, Sketched},
    spool::{Spool, Spooled},
    vector::{self, Counted},
};

/// Where impressions come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Parquet file (see [`crate::events`]).
    pub events: &'a Path,
    /// What an impression counts for where durations are asked for and the file has no column `seconds`.
    pub seconds_per_impression: Option<u32>,
}

/// What was counted for a requisition.
#[derive(Debug)]
pub struct Work<'a> {
    opened: &'a OpenedRequisition,
    data: Data<'a>,
}

#[derive(Debug)]
enum Data<'a> {
    Sketch(&'a SketchTask, Sketched),
    Shares(&'a ShareTask, Counted),
    Sealed(&'a SealTask, Counted),
    Audience(&'a DirectTask, Ask, Audience),
    Population(&'a DirectTask, u64),
}

/// Counts what a requisition asks for.
///
/// # Errors
/// As [`sketch::sketch_file`], [`vector::count_file`] and [`Audience::from_file`].
pub fn read<'a>(
    opened: &'a OpenedRequisition,
    source: &Source<'_>,
    observer: &mut dyn Observer,
) -> Result<Work<'a>, Error> {
    let data = match &opened.asked {
        Asked::Sketch(task) => {
            Data::Sketch(task, sketch::sketch_file(source.events, task.params, task.interval, observer)?)
        }
        Asked::Shares(task) => Data::Shares(task, vector::count_file(source.events, &task.vector, observer)?),
        Asked::Sealed(task) => Data::Sealed(task, vector::count_file(source.events, &task.vector, observer)?),
        Asked::Direct(task) => match task.question {
            Question::Population(population) => Data::Population(task, population.size()),
            Question::Audience(ask @ Ask::Duration { .. }) => {
                let seconds = source.seconds_per_impression;
                let audience = Audience::from_watched_file(source.events, seconds, task.interval, observer)?;
                Data::Audience(task, ask, audience)
            }
            Question::Audience(ask) => {
                Data::Audience(task, ask, Audience::from_file(source.events, task.interval, observer)?)
            }
        },
    };
    Ok(Work { opened, data })
}

impl Work<'_> {
    /// Impressions that were read, sampled or not.
    #[must_use]
    pub const fn impressions(&self) -> u64 {
        match &self.data {
            Data::Sketch(_, sketched) => sketched.impressions,
            Data::Shares(_, counted) | Data::Sealed(_, counted) => counted.impressions,
            Data::Audience(_, _, audience) => audience.impressions(),
            Data::Population(..) => 0,
        }
    }

    /// Active registers of a sketch, or sampled people that were reached.
    #[must_use]
    pub fn counted(&self) -> u64 {
        match &self.data {
            Data::Sketch(_, sketched) => sketched.sketch.active() as u64,
            Data::Shares(_, counted) | Data::Sealed(_, counted) => counted.vector.reach(),
            Data::Audience(_, _, audience) => audience.reach(),
            Data::Population(..) => 0,
        }
    }

    /// Makes the body and what its header carries, and keeps both. They are durable when this returns.
    ///
    /// `rng` must be a cryptographic generator that was seeded by the operating system.
    ///
    /// # Errors
    /// As [`Spool::create`]; [`Error::NoSigner`] where the answer has to be signed; [`Error::Consent`] when a key cannot
    /// encrypt; [`Error::Sketch`], [`Error::Share`] and [`Error::Envelope`] as [`Audience::measure`], [`share::share`] and
    /// [`seal::seal`].
    pub fn spool(
        self,
        signer: Option<&Signer>,
        spool: &Spool,
        observer: &mut dyn Observer,
        rng: &mut impl CryptoRng,
    ) -> Result<Spooled, Error> {
        let (opened, name) = (self.opened, self.opened.spool_name());
        match self.data {
            Data::Sketch(task, sketched) => spool.create(
                &name,
                &opened.binding,
                |out| {
                    encrypt::encrypt(&sketched.sketch, &task.encryption(), out, observer, rng)
                        .map(|records| (records, ()))
                },
                |(), _| Ok(Vec::new()),
            ),
            Data::Shares(task, counted) => {
                let signer = signer.ok_or(Error::NoSigner)?;
                let cells = counted.vector.cells().to_vec();
                let records = cells.len() as u64;
                // Drawn in turn: the share first, then the encryption of its seed.
                let rng = std::cell::RefCell::new(rng);
                spool.create(
                    &name,
                    &opened.binding,
                    |out| {
                        let seed = share::share(cells, &task.sharing, out, observer, &mut **rng.borrow_mut())?;
                        Ok((records, seed))
                    },
                    |seed, sha256| {
                        let rng = &mut **rng.borrow_mut();
                        let sealed = share::seal_seed(&seed, &opened.name, sha256, &task.worker_key, signer, rng)?;
                        Ok(sealed.encode_to_vec())
                    },
                )
            }
            Data::Sealed(task, counted) => {
                let sealing = Sealing { trustee: &task.trustee, key: &task.key, requisition: &opened.name };
                let cells = counted.vector.cells().to_vec();
                spool.create(
                    &name,
                    &opened.binding,
                    |out| seal::seal(cells, &sealing, out, observer, rng),
                    |header, _| Ok(header.encode_to_vec()),
                )
            }
            Data::Audience(task, ask, audience) => {
                let found = audience.measure(&ask, rng)?;
                direct(opened, task, &direct::result(&ask, task.mechanism, &found), signer, spool, rng)
            }
            Data::Population(task, people) => {
                direct(opened, task, &direct::population_result(people), signer, spool, rng)
            }
        }
    }
}

/// Signs, encrypts and spools a result.
fn direct(
    opened: &OpenedRequisition,
    task: &DirectTask,
    result: &MeasurementResult,
    signer: Option<&Signer>,
    spool: &Spool,
    rng: &mut impl CryptoRng,
) -> Result<Spooled, Error> {
    let signer = signer.ok_or(Error::NoSigner)?;
    let encrypted =
        signer.sign_and_encrypt(type_name::MEASUREMENT_RESULT, result.encode_to_vec(), &task.result_key, rng)?;
    spool.create(
        &opened.spool_name(),
        &opened.binding,
        |out| out.write_all(&encrypted.encode_to_vec()).map(|()| (1, ())).map_err(BodyError::Write),
        |(), _| Ok(Vec::new()),
    )
}
