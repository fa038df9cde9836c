//! Whose results there are.

use std::collections::BTreeSet;

use crate::{
    consumer::Signer,
    error::{Error, Result},
};

/// Checks that there is the one result of an aggregator, or one of each of the publishers that were asked (their ids).
pub(super) fn check_signers<'a>(signers: impl IntoIterator<Item = &'a Signer>, publishers: &[&str]) -> Result<()> {
    let signers: Vec<&Signer> = signers.into_iter().collect();
    if let [Signer::Duchy(_)] = signers.as_slice() {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for signer in &signers {
        match signer {
            Signer::Publisher(id) if publishers.contains(&id.as_str()) => {}
            other => return Err(Error::new(format!("{other} signed a result that nobody asked of it"))),
        }
        if !seen.insert(*signer) {
            return Err(Error::new(format!("there are two results of {signer}")));
        }
    }
    if let Some(missing) = publishers.iter().find(|id| !seen.contains(&Signer::Publisher((**id).to_owned()))) {
        return Err(Error::new(format!("there is no result of dataProviders/{missing}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_publisher_answers_once_or_one_duchy_for_all() {
        let publisher = |id: &str| Signer::Publisher(id.to_owned());
        let duchy = Signer::Duchy("aggregator".parse().unwrap());
        let check = |signers: &[Signer]| check_signers(signers, &["a", "b"]).map_err(|error| error.to_string());
        assert!(check(std::slice::from_ref(&duchy)).is_ok());
        assert!(check(&[publisher("b"), publisher("a")]).is_ok());
        assert!(check(&[publisher("a")]).unwrap_err().contains("no result of dataProviders/b"));
        assert!(check(&[publisher("a"), publisher("a"), publisher("b")]).unwrap_err().contains("two results"));
        assert!(check(&[publisher("a"), publisher("c")]).unwrap_err().contains("dataProviders/c"));
        assert!(check(&[publisher("a"), duchy]).unwrap_err().contains("aggregator"));
        assert!(check(&[]).is_err());
    }
}
