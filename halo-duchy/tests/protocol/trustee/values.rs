//! The reference's values (protocols 8.8).

use super::*;

/// A vector in which so many people have frequency 1, 2, 3, …, of `size` cells.
fn vector(histogram: &[usize], size: usize) -> Vec<u8> {
    let mut cells: Vec<u8> =
        histogram.iter().zip(1..).flat_map(|(count, frequency)| std::iter::repeat_n(frequency, *count)).collect();
    cells.resize(size, 0);
    cells
}

fn reach(histogram: &[usize], size: usize, width: f32, thresholds: Option<(u64, u64)>) -> f64 {
    let thresholds = thresholds.map(|(users, impressions)| Thresholds::new(users, impressions));
    let parameters = Parameters { sampling_width: width, thresholds, ..parameters(size, 1, 1) };
    run(&parameters, &[vector(histogram, size)]).estimate(&parameters).unwrap().reach
}

fn shares(histogram: &[usize], frequency: u32, thresholds: Option<(u64, u64)>) -> Vec<f64> {
    let size = histogram.iter().sum::<usize>() + 3;
    let thresholds = thresholds.map(|(users, impressions)| Thresholds::new(users, impressions));
    let parameters = Parameters { thresholds, ..parameters(size, frequency, 1) };
    let outcome = run(&parameters, &[vector(histogram, size)]);
    outcome.estimate(&parameters).unwrap().frequency.unwrap().shares
}

#[test]
fn reach_of_vectors() {
    let cells = vec![1, 0, 1, 0, 1, 0];
    for (width, expected) in [(1.0, 3.0), (0.5, 6.0)] {
        let parameters = Parameters { sampling_width: width, ..parameters(6, 1, 1) };
        assert_eq!(run(&parameters, std::slice::from_ref(&cells)).estimate(&parameters).unwrap().reach, expected);
    }
    // Cut to a whole number: 2 of 3 cells at a width of 0.7 are 2.857 people.
    let parameters = Parameters { sampling_width: 0.7, ..parameters(3, 1, 1) };
    assert_eq!(run(&parameters, &[vec![1, 1, 0]]).estimate(&parameters).unwrap().reach, 2.0);
}

#[test]
fn frequencies_of_vectors() {
    let third = 1.0 / 3.0;
    let one = parameters(4, 3, 1);
    let estimates = run(&one, &[vec![2, 1, 0, 3]]).estimate(&one).unwrap();
    assert_eq!((estimates.reach, estimates.frequency.unwrap().shares), (3.0, vec![third; 3]));
    let two = parameters(4, 3, 2);
    let estimates = run(&two, &[vec![1, 0, 1, 0], vec![0, 1, 1, 0]]).estimate(&two).unwrap();
    assert_eq!((estimates.reach, estimates.frequency.unwrap().shares), (3.0, vec![2.0 * third, third, 0.0]));
}

#[test]
fn nobody_reached_is_no_data() {
    for noise in [Noise::None, Noise::Reference] {
        let parameters = Parameters { noise, ..parameters(4, 3, 2) };
        let outcome = run(&parameters, &[vec![0; 4], vec![0; 4]]);
        let estimates = outcome.estimate(&parameters).unwrap();
        if noise == Noise::None {
            assert_eq!((estimates.reach, estimates.frequency.clone()), (0.0, None));
        }
        assert!(estimates.reach.is_finite() && estimates.reach_standard_error.is_finite());
    }
}

#[test]
fn reach_and_its_thresholds() {
    let small: &[usize] = &[10, 5, 1];
    assert_eq!(reach(small, 20, 1.0, None), 16.0);
    assert_eq!(reach(small, 40, 0.5, None), 32.0);
    assert_eq!(reach(small, 40, 0.5, Some((20, 20))), 32.0);
    assert_eq!(reach(small, 40, 0.5, Some((35, 30))), 0.0);
    assert_eq!(reach(small, 40, 0.5, Some((30, 50))), 0.0);
    assert_eq!(reach(small, 20, 1.0, Some((10, 50))), 0.0);
    assert_eq!(reach(&[5], 9, 1.0, Some((1000, 1000))), 0.0);
    assert_eq!(reach(&[100], 100, 1.0, Some((1, 1))), 100.0);
}

/// The number of impressions is not released: it shows at the threshold that it just meets.
#[test]
fn impressions() {
    for (histogram, width, expected) in
        [(&[0, 5, 0, 3, 7, 0][..], 1.0, 57), (&[0, 5, 0, 3, 7, 0], 0.5, 114), (&[0, 5, 0, 10], 1.0, 50)]
    {
        assert!(reach(histogram, 40, width, Some((0, expected))) > 0.0, "{expected}");
        assert_eq!(reach(histogram, 40, width, Some((0, expected + 1))), 0.0);
    }
    // 26 people, 130 impressions.
    let histogram = [2, 4, 0, 8, 0, 0, 10, 0, 2];
    assert_eq!(reach(&histogram, 40, 1.0, Some((24, 50))), 26.0);
    assert!(reach(&histogram, 40, 1.0, Some((24, 130))) > 0.0 && reach(&histogram, 40, 1.0, Some((24, 131))) == 0.0);
    assert_eq!(reach(&histogram, 40, 1.0, Some((28, 50))), 0.0);
    assert_eq!(reach(&histogram, 40, 1.0, Some((28, 100))), 0.0);
}

#[test]
fn frequencies_below_a_threshold_are_folded_down() {
    assert_eq!(shares(&[10, 30, 60], 3, None), [0.1, 0.3, 0.6]);
    let share = |count: u32, of: u32| f64::from(count) / f64::from(of);
    assert_eq!(shares(&[10, 30, 70], 3, Some((11, 5))), [0.0, 0.3, 0.7]);
    assert_eq!(shares(&[10, 30, 70], 3, Some((110, 5))), [1.0, 0.0, 0.0]);
    let found = shares(&[5, 10, 20], 3, Some((1, 15)));
    assert_eq!(found, [0.0, share(10, 30), share(20, 30)]);
    let found = shares(&[2758, 1925, 336, 311, 0], 5, Some((500, 10)));
    assert_eq!(found, [share(2758, 5330), share(1925, 5330), share(647, 5330), 0.0, 0.0]);
}

#[test]
fn histograms() {
    let of = |cells: &[u8], frequency| run(&parameters(cells.len(), frequency, 1), &[cells.to_vec()]).histogram;
    assert_eq!(of(&[1, 2, 0, 1, 3, 2, 1, 0, 0], 3), Some(vec![3, 2, 1]));
    assert_eq!(of(&[1, 2, 3, 4, 5, 6], 4), Some(vec![1, 1, 1, 3]));
}
