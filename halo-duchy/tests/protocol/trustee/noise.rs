//! Noise: as calibrated, repeated where it must be, and the reference's where it is asked for.

use halo_sketch::noise::Sensitivity;
use halo_sketch::noise::deterministic::reference::{Fingerprint, TruncatedLaplace};
use halo_sketch::noise::deterministic::{Statistic, StickyNoise};

use super::*;

#[test]
fn drawn_noise_is_what_was_calibrated() {
    // 500 seeds; five standard errors of mean and deviation.
    let parameters = Parameters { noise: Noise::DiscreteGaussian(budget(1.0, 1e-2)), ..parameters(20, 3, 2) };
    let vectors = [vec![1; 20], vec![0; 20]];
    let outcomes: Vec<Outcome> = (0..500).map(|seed| try_run(&parameters, &vectors, seed).unwrap()).collect();
    let check = |values: Vec<f64>, truth: f64, deviation: f64| {
        assert!(deviation > 0.0);
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let sd = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        assert!((mean - truth).abs() < 5.0 * deviation / n.sqrt(), "{mean} is not {truth}");
        assert!((sd / deviation - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{sd} is not {deviation}");
    };
    check(outcomes.iter().map(|one| one.reached as f64).collect(), 20.0, outcomes[0].reach_noise_sd);
    for (bin, truth) in [(0, 20.0), (2, 0.0)] {
        let bins = outcomes.iter().map(|one| one.histogram.as_ref().unwrap()[bin] as f64).collect();
        check(bins, truth, outcomes[0].frequency_noise_sd);
    }
    // Sensitivity √2 of the histogram against 1 of the reach, at equal ε and δ.
    let ratio = outcomes[0].frequency_noise_sd / outcomes[0].reach_noise_sd;
    assert!((1.3..1.6).contains(&ratio), "{ratio}");
}

#[test]
fn drawn_noise_at_the_references_privacy_parameters() {
    // The reference's case: (1, .99), 170 people in 200 cells, within 6σ and the population.
    let parameters = Parameters { noise: Noise::DiscreteGaussian(budget(1.0, 0.99)), ..parameters(200, 1, 1) };
    let outcome = run(&parameters, &[(0..200).map(|cell| u8::from(cell < 170)).collect()]);
    let found = outcome.estimate(&parameters).unwrap().reach;
    assert!(
        (found - 170.0).abs() <= 6.0 * outcome.reach_noise_sd.max(1.0) && (0.0..=200.0).contains(&found),
        "{found}"
    );
}

/// Every entry of the histogram has noise of its own, and none of reach's: 120 seeds, at budgets that differ, within five
/// standard errors of a deviation.
#[test]
fn standard_errors_of_shares_are_the_spread_of_repeated_draws() {
    let people: Vec<u8> = (0..6_000).map(|person| [0, 0, 1, 1, 1, 2][person % 6]).collect();
    for (reach, frequency) in [(10.0, 0.5), (0.05, 1.0)] {
        let params = |epsilon| PrivacyParams::new(epsilon, 1e-6).unwrap();
        let budget = Budget { reach: params(reach), frequency: Some(params(frequency)), impressions: None };
        let parameters = Parameters { noise: Noise::DiscreteGaussian(budget), ..parameters(6_000, 2, 1) };
        let found: Vec<_> = (0..120)
            .map(|seed| {
                try_run(&parameters, std::slice::from_ref(&people), seed).unwrap().estimate(&parameters).unwrap()
            })
            .map(|estimates| estimates.frequency.unwrap())
            .collect();
        for place in 0..2 {
            let n = found.len() as f64;
            let shares = || found.iter().map(|one| one.shares[place]);
            let mean = shares().sum::<f64>() / n;
            let spread = (shares().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let told = found.iter().map(|one| one.standard_errors[place]).sum::<f64>() / n;
            assert!((spread / told - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{place}: {told} told, {spread} seen");
        }
    }
}

#[test]
fn sticky_noise_stays_with_the_data() {
    let noise = Noise::Sticky(budget(1e-3, 1e-9));
    let plain = Parameters { noise, ..parameters(4, 3, 2) };
    let vectors = [vec![1, 0, 1, 0], vec![0, 1, 1, 0]];
    let base = run(&plain, &vectors);
    // Another seed, another computation's requisitions, another split among the same number of publishers: the same data.
    assert_eq!(base, try_run(&plain, &vectors, 77).unwrap());
    let names = vec!["requisitions/x".to_owned(), "requisitions/y".to_owned()];
    assert_eq!(base, run(&Parameters { requisitions: names, ..plain.clone() }, &vectors));
    assert_eq!(base, run(&plain, &[vec![1, 1, 2, 0], vec![0; 4]]));
    // Other data, other parameters, another secret: other noise.
    let noise_of = |outcome: &Outcome| (outcome.reached - 3, outcome.histogram.as_ref().unwrap()[2]);
    let moved = run(&plain, &[vec![0, 1, 0, 1], vec![1, 0, 0, 1]]);
    assert_ne!(noise_of(&base), noise_of(&moved));
    let near = Parameters { noise: Noise::Sticky(budget(1.1e-3, 2e-9)), ..plain.clone() };
    assert_eq!(noise_of(&base), noise_of(&run(&near, &vectors)), "slightly other parameters are no other draw");
    let other = Parameters { noise: Noise::Sticky(budget(2e-3, 1e-9)), ..plain.clone() };
    assert_ne!(noise_of(&base), noise_of(&run(&other, &vectors)));
    let me = "aggregator".parse().unwrap();
    let trust = Trust { noise_key: Some(Secret::new([10; 32])), ..trust(true) };
    let stranger = Duchy::new(plain.clone(), "c".to_owned(), me, Secret::new([1; 32]), trust).unwrap();
    let stranger = done(stranger.start(&requisitions(&plain, &vectors), &MemoryWorkspace).unwrap());
    assert_ne!(noise_of(&base), noise_of(&stranger));
    // Its size is that of the mechanism.
    let params = PrivacyParams::new(1e-3, 1e-9).unwrap();
    let reach = StickyNoise::new(params, Sensitivity::scalar(1)).unwrap();
    assert_eq!(base.reach_noise_sd, reach.standard_deviation());
    assert!((base.reached - 3).unsigned_abs() <= reach.bound());
}

#[test]
fn the_references_noise_is_the_references() {
    let parameters = Parameters { noise: Noise::Reference, ..parameters(7, 3, 3) };
    // Aggregated: the reference's golden vector, from three contributions.
    let vectors = [vec![0, 1, 1, 0, 3, 0, 0], vec![0, 0, 1, 1, 0, 0, 2], vec![0; 7]];
    let mut fingerprint = Fingerprint::new(3);
    fingerprint.update(&[0, 1, 2, 1, 3, 0, 2]);
    let fingerprint = fingerprint.finish();
    let draw = |statistic| TruncatedLaplace::of_sensitivity(1).draw(&fingerprint, statistic);
    assert_eq!(
        [0, 1, 2, 3].map(|f| draw(if f == 0 { Statistic::Reach } else { Statistic::Frequency(f) })),
        [1, -4, -2, 0]
    );
    let outcome = run(&parameters, &vectors);
    assert_eq!(outcome.reached, 5 + 1);
    assert_eq!(outcome.histogram, Some(vec![0, 0, 1]), "2 − 4 and 2 − 2, not below 0");
}

#[test]
fn deterministic_noise_leaves_small_contributions_out() {
    // One publisher with 3 people, one with 60; at a width of 0.5 they are 6 and 120.
    let small: Vec<u8> = (0..100).map(|cell| u8::from(cell >= 97)).collect();
    let large: Vec<u8> = (0..100).map(|cell| u8::from(cell < 60)).collect();
    let with = |noise, users| Parameters {
        noise,
        sampling_width: 0.5,
        thresholds: Some(Thresholds::new(users, 0)),
        ..parameters(100, 1, 2)
    };
    let both = [small.clone(), large.clone()];
    assert_eq!(run(&with(Noise::None, 7), &both).reached, 63, "without deterministic noise all count");
    let mut fingerprint = Fingerprint::new(1);
    fingerprint.update(&large);
    let noise = TruncatedLaplace::of_sensitivity(1).draw(&fingerprint.finish(), Statistic::Reach);
    assert_eq!(run(&with(Noise::Reference, 7), &both).reached, 60 + noise);
    let mut fingerprint = Fingerprint::new(2);
    let sums: Vec<u8> = small.iter().zip(&large).map(|(one, other)| one + other).collect();
    fingerprint.update(&sums);
    let noise = TruncatedLaplace::of_sensitivity(1).draw(&fingerprint.finish(), Statistic::Reach);
    assert_eq!(run(&with(Noise::Reference, 6), &both).reached, 63 + noise, "6 are not below 6");
    let sticky = Noise::Sticky(budget(30.0, 0.1));
    let bound = StickyNoise::new(PrivacyParams::new(30.0, 0.1).unwrap(), Sensitivity::scalar(1)).unwrap().bound();
    assert!(bound < 3);
    assert!((run(&with(sticky, 7), &both).reached - 60).unsigned_abs() <= bound);
}

#[test]
fn impressions_have_noise_of_their_own_budget() {
    // 10 people with 126 impressions each; σ of impressions is that of sensitivity 126.
    let thresholds = Some(Thresholds::new(0, 1260));
    let exact = Parameters { thresholds, ..parameters(10, 1, 1) };
    assert!(!run(&exact, &[vec![127; 10]]).suppressed, "127 count as 126");
    let noised = Parameters { noise: Noise::DiscreteGaussian(budget(1.0, 1e-3)), ..exact.clone() };
    let held_back = (0..40).filter(|seed| try_run(&noised, &[vec![127; 10]], *seed).unwrap().suppressed).count();
    assert!((5..=35).contains(&held_back), "{held_back} of 40: about half of all draws are below 0");
    let missing = Budget { impressions: None, ..budget(1.0, 1e-3) };
    let error = Parameters { noise: Noise::DiscreteGaussian(missing), ..exact }.check().unwrap_err();
    assert!(error.to_string().contains("impressions need noise"), "{error}");
}
