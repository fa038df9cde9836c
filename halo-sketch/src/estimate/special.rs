//! The entire exponential integral.

const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

/// Ein(z) = ∫₀^z (1 − e^−w)/w dw for z ≥ 0, to about 15 digits.
pub(super) fn ein(z: f64) -> f64 {
    if z <= 2.0 {
        // −Σ_{k ≥ 1} (−z)^k/(k·k!): alternating, but small enough here not to lose digits.
        let mut power = 1.0;
        let mut sum = 0.0;
        for k in 1..60 {
            let k = f64::from(k);
            power *= -z / k;
            let term = power / k;
            sum -= term;
            if term.abs() <= 1e-18 * sum.abs() {
                break;
            }
        }
        return sum;
    }
    e1(z) + z.ln() + EULER_GAMMA
}

/// E₁(z) for z above about 1, by the continued fraction of Abramowitz and Stegun 5.1.22 (modified Lentz).
fn e1(z: f64) -> f64 {
    let mut b = z + 1.0;
    let mut c = f64::INFINITY;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for k in 1..500 {
        let k = f64::from(k);
        let numerator = -k * k;
        b += 2.0;
        d = 1.0 / (numerator * d + b);
        c = b + numerator / c;
        let factor = c * d;
        fraction *= factor;
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction * (-z).exp()
}

#[cfg(test)]
mod tests {
    use super::{EULER_GAMMA, e1, ein};

    #[test]
    fn known_values() {
        // E₁(x) = −Ei(−x).
        let e1_by_ein = |z: f64| ein(z) - z.ln() - EULER_GAMMA;
        for (z, value) in [(1.0, 0.219_383_934_395_52), (0.5, 0.559_773_594_776_16), (0.1, 1.822_923_958_419_39)] {
            assert!((e1_by_ein(z) / value - 1.0).abs() < 1e-12, "{z}");
        }
        assert!((e1(50.5) / 2.272_371_329_322_19e-24 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn both_branches_meet() {
        let by_fraction = e1(2.0) + 2.0_f64.ln() + EULER_GAMMA;
        assert!((ein(2.0) / by_fraction - 1.0).abs() < 1e-14);
        assert_eq!(ein(0.0), 0.0);
    }
}
