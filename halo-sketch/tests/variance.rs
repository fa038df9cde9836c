//! Variances and covariances against the reference's own test values (specification: protocols 8.9 and the file of
//! vectors beside it; `line` is the line of the reference's VariancesTest.kt or CovariancesTest.kt), within the 0.5 % that
//! its tests allow.
//!
//! Inputs that the vectors lack were solved from one expected number and are confirmed by the others of the same case;
//! each says so. Where the reference's value rests on its bisection or on an approximation, the test applies that.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use halo_core::privacy::{Epsilon, MaximumFrequency, PrivacyParams};
use halo_sketch::{
    Error,
    accounting::gaussian_sigma,
    liquid_legions::Params,
    noise::Sensitivity,
    variance::{
        self, FrequencyMeasurement, Interval,
        Methodology::{self, Deterministic, FrequencyVector},
        ReachMeasurement, ReachTerm, ScalarMeasurement, SketchShape,
    },
};
use proptest::prelude::*;

/// The tolerance of the reference's tests.
const TOLERANCE: f64 = 5e-3;

fn close(value: f64, expected: f64, what: impl std::fmt::Display) {
    // What is 0 in the reference may come out as a rounding of it.
    assert!((value - expected).abs() <= TOLERANCE * expected.abs() + 1e-21, "{what}: {value:e} is not {expected:e}");
}

fn params(epsilon: f64, delta: f64) -> PrivacyParams {
    PrivacyParams::new(epsilon, delta).unwrap()
}

/// Variance of a direct measurement's noise. The reference's search for σ ends at 5·10⁻⁴: with (1, 1), which needs no
/// noise, its variance is 2.5·10⁻⁷.
fn direct(epsilon: f64, delta: f64) -> f64 {
    const BISECTION_FLOOR: f64 = 5e-4;
    gaussian_sigma(params(epsilon, delta), Sensitivity::scalar(1)).max(BISECTION_FLOOR).powi(2)
}

/// Variance of the noise of all Duchies together.
fn distributed(epsilon: f64, delta: f64) -> f64 {
    variance::reference_gaussian(params(epsilon, delta)).unwrap()
}

fn single(decay_rate: f64, size: u64) -> Methodology {
    Methodology::Sketch(SketchShape { decay_rate, size })
}

fn llv2(decay_rate: f64, size: u64) -> Methodology {
    Methodology::LiquidLegionsV2(SketchShape { decay_rate, size })
}

const fn from_zero(width: f64) -> Interval {
    Interval { start: 0.0, width }
}

/// A reach with the noise that its methodology has.
fn measured(
    methodology: Methodology,
    reach: f64,
    interval: Interval,
    (epsilon, delta): (f64, f64),
) -> ReachMeasurement {
    let noise_variance = match methodology {
        Deterministic | Methodology::Sketch(_) => direct(epsilon, delta),
        _ => distributed(epsilon, delta),
    };
    ReachMeasurement { methodology, reach, interval, noise_variance }
}

#[test]
fn noises() {
    assert!((variance::truncated_laplace(params(1.0, 1e-3)).unwrap() - 1.931_125_917_838_5).abs() < 1e-12);
    // Without a bound that matters it is Laplace noise, and with δ = 1/2 nearly uniform on ±B, B = ln(e^ε)/ε = 1.
    let laplace = variance::laplace(Epsilon::new(0.5).unwrap());
    assert_eq!(laplace, 8.0);
    assert!((variance::truncated_laplace(params(0.5, 1e-300)).unwrap() - laplace).abs() < 1e-9);
    assert!((variance::truncated_laplace(params(1e-4, 0.5)).unwrap() - 1.0 / 3.0).abs() < 1e-4);
    // Both branches of the formula meet.
    let (below, above) =
        (variance::truncated_laplace(params(0.000_999, 0.5)), variance::truncated_laplace(params(0.001_001, 0.5)));
    assert!((below.unwrap() - above.unwrap()).abs() < 1e-5);
}

#[test]
fn deterministic_sums() {
    let cap = |maximum| MaximumFrequency::new(maximum).unwrap();
    let check = |line: u32, measurement: ScalarMeasurement, expected: f64| {
        close(measurement.variance().unwrap(), expected, format_args!("line {line}"));
    };
    // The case gives no impressions and no width; with all people sampled only noise is left.
    let truncated = variance::truncated_laplace(params(1.0, 1e-3)).unwrap();
    check(54, ScalarMeasurement::impressions(1e6, cap(3), 1.0, truncated), 1.931_125_917_8 * 9.0);
    check(102, ScalarMeasurement::reach(0.0, 1e-4, direct(1e-3, 1e-9)), 1_701_291_910_758_399.5);
    check(126, ScalarMeasurement::reach(3e8, 0.9, direct(1e-2, 1e-15)), 33_906_671.712_079);
    check(196, ScalarMeasurement::impressions(0.0, cap(1), 1.0, direct(1.0, 1.0)), 2.5e-7);
    check(222, ScalarMeasurement::impressions(1.0, cap(1), 1e-2, direct(1e-2, 1e-9)), 2_102_185_919.160_000_6);
    check(349, ScalarMeasurement::watch_duration(0.0, 1.0, 1.0, direct(1.0, 1.0)), 2.5e-7);
    check(427, ScalarMeasurement::watch_duration(3e8, 200.0, 1e-2, direct(1e-2, 1e-9)), 90_027_432_806_400.0);
    check(453, ScalarMeasurement::watch_duration(3e8, 200.0, 1.0, direct(1e-2, 1e-9)), 8_408_743_280.640_002);
    // Protocols 8.9: reach with the truncated Laplace noise, and reach 0 with (1, 1).
    check(0, ScalarMeasurement::reach(5e5, 1.0, truncated), 1.931_125_917_8);
    check(0, ScalarMeasurement::reach(0.0, 1.0, direct(1.0, 1.0)), 2.5e-7);
    assert_eq!(ScalarMeasurement::population(1e9, 17.0).variance().unwrap(), 17.0);
    // A metric of one impression measurement with weight 2.
    let impressions = ScalarMeasurement::impressions(3e8, cap(200), 1e-2, direct(1e-2, 1e-9)).variance().unwrap();
    let metric = variance::linear_combination(&[2.0], &[impressions], |_, _| Ok(0.0)).unwrap();
    close(metric, 90_027_432_806_400.0 * 4.0, "line 4775");
}

#[test]
fn reach() {
    let vector = FrequencyVector { size: 10_000_000 };
    for (line, methodology, reach, width, expected) in [
        (1239, single(1e-3, 100_000), 2.0, 1.0, 2_520.944_139_747_386_5),
        (1266, single(1e2, 100_000), 2.0, 1.0, 2_525.892_838_652_5),
        (1293, single(1e-3, 100_000), 3e6, 0.1, 289_553_744.889_857_5),
        (1320, single(1e2, 100_000), 3e6, 0.1, 28_923_114_340.800_056),
        (1374, single(1e2, 100_000), 3e6, 1.0, 28_922_934_034.985_62),
        (1475, llv2(1e2, 100_000), 2.0, 0.1, 433_242.322_339_912_4),
        (1501, llv2(1e-3, 100_000), 2.0, 1.0, 4_328.084_473_679_164),
        (1528, llv2(1e2, 100_000), 2.0, 1.0, 4_336.579_244_624_804),
        (1582, llv2(1e2, 100_000), 3e6, 0.1, 45_186_835_212.940_76),
        // The size of the vector is that of protocols 8.9.
        (1609, vector, 2.0, 0.1, 432_791.131_376_411_25 + 17.999_999_74),
        // The case lacks its reach: a tenth or nine tenths of the population give 8.1·10⁷. Its first summand is a direct
        // noise's, within the tolerance of the sum.
        (1662, vector, 1e7, 0.1, 252_102.581_064_840_52 + 8.1e7),
        (1743, llv2(1e-3, 100_000), 3e6, 1.0, 4.942_506_702_796_21e29),
        (1770, llv2(1e2, 100_000), 3e6, 1.0, 45_186_557_325.272_74),
        // From protocols 8.9.
        (0, llv2(1e-3, 100_000), 2.0, 0.1, 432_817.788_785_599_35),
        (0, llv2(1e-3, 100_000), 3e6, 0.1, 362_456_073.197_418),
        (0, single(1e-3, 100_000), 2.0, 0.1, 252_107.369_636_947),
        (0, single(1e2, 100_000), 2.0, 0.1, 252_354.674_938_006_2),
        (0, vector, 2.0, 1.0, 4_327.911_313_764_112_5),
    ] {
        let measurement = measured(methodology, reach, from_zero(width), (0.1, 1e-9));
        let found = variance::reach(&measurement).unwrap();
        close(found, expected, format_args!("line {line} {methodology:?}"));
    }
}

#[test]
fn standard_errors_of_sketches() {
    // Science 1.4: decay rate, registers, reach, width, deviation of the noise, relative standard error.
    for (decay_rate, size, reach, width, noise, expected) in [
        (12.0, 100_000, 1e6, 1.0, 0.0, 0.009_067_1),
        (12.0, 100_000, 1e6, 1.0, 48.231_779, 0.010_759_1),
        (12.0, 100_000, 1e7, 1.0, 48.231_779, 0.010_835_8),
        (12.0, 100_000, 1e6, 0.1, 0.0, 0.009_065_4),
        (12.0, 100_000, 1e6, 0.01, 0.0, 0.011_721_7),
        (12.0, 100_000, 3e8, 0.1, 0.0, 0.009_176_5),
        (12.0, 100_000, 1e5, 1.0, 500.0, 0.060_611_5),
        (5.6, 1_000_000, 1e7, 1.0, 4.98, 0.002_065_7),
    ] {
        let measurement = ReachMeasurement {
            methodology: llv2(decay_rate, size),
            reach,
            interval: from_zero(width),
            noise_variance: noise * noise,
        };
        let found = variance::reach(&measurement).unwrap().sqrt() / reach;
        assert!(
            (found / expected - 1.0).abs() < 1e-4,
            "{decay_rate} {size} {reach} {width}: {found} is not {expected}"
        );
    }
    // Science 7.2: a tenth of a population of 10⁷ with 10⁶ people reached.
    let vector = ReachMeasurement {
        methodology: FrequencyVector { size: 1_000_000 },
        reach: 1e6,
        interval: from_zero(0.1),
        noise_variance: 0.0,
    };
    assert!((variance::reach(&vector).unwrap().sqrt() / 1e6 - 0.002_846).abs() < 1e-6);
}

struct Case {
    line: u32,
    methodology: Methodology,
    reach: f64,
    width: f64,
    reach_params: (f64, f64),
    frequency_params: (f64, f64),
    shares: &'static [f64],
    /// Relative, relative k or more, count, count k or more.
    expected: [&'static [f64]; 4],
}

/// Shares of 4, 3, 2, 1 and 0 tenths.
const FALLING: [f64; 5] = [0.4, 0.3, 0.2, 0.1, 0.0];
/// Shares of 1 to 5 fifteenths.
const RISING: [f64; 5] = [1.0 / 15.0, 2.0 / 15.0, 3.0 / 15.0, 4.0 / 15.0, 5.0 / 15.0];

fn check(case: &Case) {
    let reach = measured(case.methodology, case.reach, from_zero(case.width), case.reach_params);
    let (epsilon, delta) = case.frequency_params;
    let noise_variance = measured(case.methodology, case.reach, Interval::FULL, (epsilon, delta)).noise_variance;
    let found = variance::frequency(&FrequencyMeasurement { reach, shares: case.shares, noise_variance }).unwrap();
    let lists = [&found.relative, &found.relative_k_plus, &found.count, &found.count_k_plus];
    for ((list, expected), name) in lists.iter().zip(case.expected).zip(["share", "k+ share", "count", "k+ count"]) {
        assert_eq!(list.len(), expected.len());
        for (k, (value, expected)) in list.iter().zip(expected).enumerate() {
            close(*value, *expected, format_args!("line {}, {name} of {}", case.line, k + 1));
        }
    }
}

#[test]
fn frequencies_of_counts_and_sketches() {
    for case in &[
        Case {
            line: 805,
            methodology: Deterministic,
            reach: 3e8,
            width: 0.9,
            reach_params: (0.05, 1e-15),
            frequency_params: (0.2, 1e-15),
            shares: &FALLING,
            expected: [
                &[
                    8.890_679_331_116_596e-11,
                    7.779_299_653_671_33e-11,
                    5.927_358_279_708_091e-11,
                    3.334_855_209_226_885_4e-11,
                    1.790_442_227_709_191e-14,
                ],
                &[
                    0.0,
                    8.890_679_331_116_596e-11,
                    7.780_732_007_453_497e-11,
                    3.336_287_563_009_053e-11,
                    1.790_442_227_709_191e-14,
                ],
                &[
                    13_338_853.595_851_457,
                    10_003_568.425_519_641,
                    6_668_933.002_434_713,
                    3_334_947.326_596_679_6,
                    1_611.398_005_535_523,
                ],
                &[
                    33_357_763.718_004_923,
                    20_010_406.339_452_446,
                    10_004_857.543_924_069,
                    3_336_236.445_001_108,
                    1_611.398_005_535_523,
                ],
            ],
        },
        Case {
            line: 908,
            methodology: Deterministic,
            reach: 1.0,
            width: 0.05,
            reach_params: (0.5, 1e-15),
            frequency_params: (0.2, 1e-15),
            shares: &FALLING,
            expected: [
                &[
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                ],
                &[
                    0.0,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                ],
                &[
                    21_132.415_686_733_91,
                    15_053.251_585_070_73,
                    10_710.991_512_454_175,
                    8_105.635_468_884_24,
                    7_237.183_454_360_929,
                ],
                &[
                    86_845.201_452_331_12,
                    38_501.455_977_200_13,
                    15_053.251_585_070_733,
                    8_105.635_468_884_24,
                    7_237.183_454_360_929,
                ],
            ],
        },
        Case {
            line: 1797,
            methodology: single(1e-2, 100_000),
            reach: 1e3,
            width: 0.1,
            reach_params: (0.5, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    0.032_608_067_849_674_39,
                    0.027_770_887_646_892_062,
                    0.025_798_294_414_839_08,
                    0.026_690_288_153_515_446,
                    0.030_446_868_862_921_157,
                ],
                &[
                    0.0,
                    0.032_608_067_849_674_405,
                    0.052_128_382_737_228_97,
                    0.051_047_783_243_852_37,
                    0.030_446_868_862_921_157,
                ],
                &[
                    36_541.340_051_824_605,
                    30_175.900_914_382,
                    27_141.969_190_564_3,
                    27_439.544_880_371_428,
                    31_068.627_983_803_39,
                ],
                &[
                    20_421.118_627_387_797,
                    40_625.563_777_302_11,
                    55_030.803_301_424_69,
                    52_294.447_267_414_136,
                    31_068.627_983_803_39,
                ],
            ],
        },
        // The file lacks the size of this sketch; 3,000,000 registers reproduce all twenty numbers.
        Case {
            line: 2217,
            methodology: single(1e-2, 3_000_000),
            reach: 3e8,
            width: 0.1,
            reach_params: (0.5, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    7.923_743_278_692_03e-8,
                    6.933_190_871_070_413e-8,
                    5.282_946_173_981_984e-8,
                    2.973_009_187_426_745_7e-8,
                    3.379_911_404_700_902_4e-11,
                ],
                &[
                    0.0,
                    7.923_743_278_692_03e-8,
                    6.935_894_800_194_172e-8,
                    2.975_713_116_550_506_8e-8,
                    3.379_911_404_700_902_4e-11,
                ],
                &[
                    1_947_873_584_904.0,
                    1_097_907_668_595.999_9,
                    489_940_606_067.0,
                    123_972_397_310.875_02,
                    3_042_330.235_074_61,
                ],
                &[
                    12_129_632_842_688.0,
                    4_373_800_153_436.000_5,
                    1_097_910_102_459.999_9,
                    123_974_831_175.0,
                    3_042_330.235_074_61,
                ],
            ],
        },
        Case {
            line: 3016,
            methodology: llv2(100.0, 100_000),
            reach: 1e3,
            width: 0.1,
            reach_params: (0.5, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    0.055_329_214_041_230_75,
                    0.047_086_797_283_141_21,
                    0.043_959_556_043_144_256,
                    0.045_947_490_321_239_945,
                    0.053_050_600_117_428_26,
                ],
                &[
                    0.0,
                    0.055_329_214_041_230_7,
                    0.089_527_277_377_083_8,
                    0.088_387_970_415_182_55,
                    0.053_050_600_117_428_26,
                ],
                &[
                    61_439.777_636_562_65,
                    50_977.015_322_569,
                    46_342.141_280_924_52,
                    47_535.155_511_629_26,
                    54_556.058_014_683_185,
                ],
                &[
                    28_377.773_181_124_82,
                    67_115.332_272_787_45,
                    94_621.861_734_315_53,
                    91_180.001_923_375_78,
                    54_556.058_014_683_185,
                ],
            ],
        },
        Case {
            line: 3116,
            methodology: llv2(1e-2, 100_000),
            reach: 1e3,
            width: 1.0,
            reach_params: (0.5, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    0.000_492_988_618_446_575_9,
                    0.000_419_100_447_298_280_7,
                    0.000_394_070_246_124_241_05,
                    0.000_417_898_014_924_457_44,
                    0.000_490_583_753_698_929_6,
                ],
                &[
                    0.0,
                    0.000_492_988_618_446_576_2,
                    0.000_811_567_450_257_424_4,
                    0.000_810_365_017_883_601,
                    0.000_490_583_753_698_929_6,
                ],
                &[
                    522.140_650_527_435_4,
                    435.524_220_945_022_53,
                    401.407_446_595_287_2,
                    419.790_327_478_172_97,
                    490.672_863_593_693_7,
                ],
                &[
                    181.640_533_532_132_4,
                    558.468_757_233_815_3,
                    828.062_511_819_982_3,
                    812.328_618_353_129_1,
                    490.672_863_593_693_7,
                ],
            ],
        },
        Case {
            line: 3222,
            methodology: llv2(100.0, 100_000),
            reach: 1e3,
            width: 1.0,
            reach_params: (0.5, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    0.001_342_126_611_318_616_5,
                    0.001_144_291_492_840_219_6,
                    0.001_055_120_631_884_781_1,
                    0.001_074_614_028_452_300_4,
                    0.001_202_771_682_542_777_6,
                ],
                &[
                    0.0,
                    0.001_342_126_611_318_616_5,
                    0.002_106_508_838_874_441,
                    0.002_036_831_374_486_522_3,
                    0.001_202_771_682_542_777_6,
                ],
                &[
                    1_461.860_022_399_545_4,
                    1_211.930_473_125_146_8,
                    1_085.587_997_964_794_3,
                    1_082.832_596_918_464,
                    1_203.664_269_986_163_4,
                ],
                &[
                    742.108_794_495_812_6,
                    1_610.281_781_298_690_2,
                    2_174.861_889_114_065,
                    2_045.764_012_907_393_4,
                    1_203.664_269_986_163_4,
                ],
            ],
        },
        // The file lacks the size of this sketch; 3,000,000 registers reproduce all twenty numbers.
        Case {
            line: 3328,
            methodology: llv2(1e-2, 3_000_000),
            reach: 3e8,
            width: 0.1,
            reach_params: (0.5, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    0.000_435_209_032_590_609_8,
                    0.000_374_331_488_758_370_3,
                    0.000_324_680_233_771_944,
                    0.000_286_255_267_631_331_23,
                    0.000_259_056_590_336_531_63,
                ],
                &[
                    0.0,
                    0.000_435_209_032_590_609_94,
                    0.000_581_576_761_027_595_6,
                    0.000_493_500_539_900_556_5,
                    0.000_259_056_590_336_531_63,
                ],
                &[
                    41_575_204_563_504.01,
                    35_045_372_066_235.004,
                    29_826_056_933_018.504,
                    25_917_259_163_848.25,
                    23_318_978_758_726.46,
                ],
                &[
                    14_999_149_157_200.002,
                    44_575_034_394_936.01,
                    53_700_555_073_216.01,
                    44_572_442_170_829.375,
                    23_318_978_758_726.46,
                ],
            ],
        },
        Case {
            line: 3540,
            methodology: llv2(100.0, 100_000),
            reach: 3e8,
            width: 0.99,
            reach_params: (0.1, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    0.000_720_878_234_262_679_2,
                    0.000_618_746_479_108_277_1,
                    0.000_544_702_694_156_81,
                    0.000_498_746_879_408_277_4,
                    0.000_480_879_034_862_679_3,
                ],
                &[
                    0.0,
                    0.000_720_878_234_262_678_5,
                    0.001_003_449_706_998_420_8,
                    0.000_883_450_107_298_420_6,
                    0.000_480_879_034_862_679_3,
                ],
                &[
                    137_507_997_147_242.02,
                    96_637_338_624_596.98,
                    67_345_189_584_765.0,
                    49_631_550_027_739.75,
                    43_496_419_953_523.766,
                ],
                &[
                    451_894_967_607_984.06,
                    227_886_990_668_836.03,
                    131_434_474_587_415.98,
                    84_428_685_990_558.75,
                    43_496_419_953_523.766,
                ],
            ],
        },
        Case {
            line: 3711,
            methodology: llv2(1e-2, 100_000),
            reach: 10.0,
            width: 0.01,
            reach_params: (0.1, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &FALLING,
            expected: [
                &[
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                ],
                &[
                    0.0,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                    0.083_333_333_333_333_36,
                ],
                &[
                    10_531_710.756_153_584,
                    7_502_042.935_890_221,
                    5_337_994.492_844_966,
                    4_039_565.427_017_812,
                    3_606_755.738_408_761,
                ],
                &[
                    43_280_968.860_905_12,
                    19_187_904.528_334_606,
                    7_502_042.935_890_224,
                    4_039_565.427_017_812,
                    3_606_755.738_408_761,
                ],
            ],
        },
    ] {
        check(case);
    }
}

/// The cases lack reach and vector size. 10⁷ cells are those of protocols 8.9; reach follows from the variance of the
/// number of people reached once or more, and reproduces the other numbers of each case.
#[test]
fn frequencies_of_vectors() {
    for case in &[
        Case {
            line: 3817,
            methodology: FrequencyVector { size: 10_000_000 },
            reach: 1e4,
            width: 0.1,
            reach_params: (0.1, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &RISING,
            expected: [
                &[5.561_141_968_2e-4, 6.618_196_814_8e-4, 7.979_954_888_5e-4, 9.646_416_189_3e-4, 4.047_032_280_9e-3],
                &[0.0, 5.561_141_968_2e-4, 1.278_874_523_7e-3, 2.351_102_917e-3, 4.047_032_280_9e-3],
                &[5.408_786_354_6e4, 6.008_774_360_6e4, 6.608_754_366_6e4, 7.208_726_372_6e4, 6.551_417_456_2e5],
                &[5.227_821_322_8e5, 5.648_711_957e5, 6.009_611_790_7e5, 6.310_516_023_8e5, 6.551_417_456_2e5],
            ],
        },
        Case {
            line: 4046,
            methodology: FrequencyVector { size: 10_000_000 },
            reach: 9e7,
            width: 0.1,
            reach_params: (0.1, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &RISING,
            expected: [
                &[6.228_396_533_8e-9, 1.156_244_233_4e-8, 1.600_807_417_8e-8, 1.956_529_206_7e-8, 2.226_971_667e-8],
                &[0.0, 6.228_396_533_8e-9, 1.601_401_095_7e-8, 2.402_635_953_5e-8, 2.226_971_667e-8],
                &[5.080_808_841_1e7, 9.508_808_885_4e7, 1.328_880_892_3e8, 1.642_080_895_5e8, 1.896_251_446_4e8],
                &[8.143_279_194_1e7, 1.214_408_802_4e8, 1.819_689_687_5e8, 2.241_370_570_8e8, 1.896_251_446_4e8],
            ],
        },
        Case {
            line: 4160,
            methodology: FrequencyVector { size: 10_000_000 },
            reach: 9e6,
            width: 1.0,
            reach_params: (0.1, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &RISING,
            expected: [
                &[
                    6.174_249_336_5e-12,
                    6.886_662_721_5e-12,
                    8.074_018_363_1e-12,
                    9.736_316_261_4e-12,
                    4.749_422_566_5e-11,
                ],
                &[0.0, 6.174_249_336_5e-12, 1.401_079_657_1e-11, 2.635_929_524_4e-11, 4.749_422_566_5e-11],
                &[4.808_790_348_6e2, 4.808_790_348_6e2, 4.808_790_348_6e2, 4.808_790_348_6e2, 6.251_427_453_2e3],
                &[4.327_911_313_8e3, 4.808_790_348_6e3, 5.289_669_383_5e3, 5.770_548_418_4e3, 6.251_427_453_2e3],
            ],
        },
        Case {
            line: 4274,
            methodology: FrequencyVector { size: 10_000_000 },
            reach: 5e7,
            width: 0.1,
            reach_params: (0.1, 1e-9),
            frequency_params: (0.3, 1e-9),
            shares: &[1.0],
            expected: [&[0.0], &[0.0], &[2.254_327_933_8e8], &[2.254_327_933_8e8]],
        },
    ] {
        check(case);
    }
}

fn term(weight: f64, publishers: u64, measurement: ReachMeasurement) -> ReachTerm {
    ReachTerm { weight, publishers, measurement }
}

#[test]
fn metrics() {
    let noise = (0.1, 1e-9);
    let half = |start: f64| Interval { start, width: 0.5 };
    let sketch = measured(llv2(1e-3, 1_000_000), 2.0, half(0.0), noise);
    let metric = |line: u32, publishers: u64, interval: Interval, expected: f64| {
        let counted = measured(Deterministic, 1.0, interval, noise);
        let found = variance::reach_metric(&[term(1.0, 0b11, sketch), term(-1.0, publishers, counted)]).unwrap();
        close(found, expected, format_args!("line {line}"));
    };
    metric(4459, 0b10, half(0.0), 27_396.052_940_381_534);
    metric(4555, 0b01, half(0.5), 27_400.783_126_975_15);
    // A publisher's own method with a variance that it states: nothing is known of how it varies with others.
    let own = variance::reach(&sketch).unwrap();
    let found = variance::linear_combination(&[1.0, -1.0], &[own, 1e4], |_, _| Ok(0.0)).unwrap();
    close(found, own + 1e4, "line 4603");
}

fn counted(reach: f64, interval: Interval) -> ReachMeasurement {
    ReachMeasurement { methodology: Deterministic, reach, interval, noise_variance: 0.0 }
}

/// Two intervals of these widths whose union has the third.
fn intervals(one: f64, other: f64, union: f64) -> (Interval, Interval) {
    let found = (from_zero(one), Interval { start: union - other, width: other });
    assert!((found.0.union_width(found.1).unwrap() - union).abs() < 1e-12);
    found
}

#[test]
fn covariances_of_counts() {
    for (line, reaches, widths, expected) in [
        (31, (1.0, 2.0, 2.0), (2e-4, 3e-4, 4e-4), 1_665.666_666_666_666_5),
        (50, (3e8, 3e8, 4e8), (1e-4, 1e-4, 2e-4), -2e8),
        (71, (3e8, 3e8, 6e8), (0.7, 0.7, 0.7), 0.0),
    ] {
        let (one, other) = intervals(widths.0, widths.1, widths.2);
        let found =
            variance::reach_covariance(&counted(reaches.0, one), &counted(reaches.1, other), reaches.2).unwrap();
        close(found, expected, format_args!("line {line}"));
    }
    // A sketch and a vector share no registers: only the sampling.
    let interval = from_zero(81.0 / 300.0);
    let sketch = measured(single(5.6, 100_000), 34_678_000.0, interval, (0.1, 1e-9));
    let vector = measured(FrequencyVector { size: 55_000_000 }, 33_123_456.0, interval, (0.1, 1e-9));
    let found = variance::reach_covariance(&sketch, &vector, 37_123_456.0).unwrap();
    close(found, 8.2944e7, "line 501");
}

/// The reference's covariance of two sketches: it takes the people in each and in both to be at least one, and a register
/// to be empty with probability e^(−p·y) instead of (1 − p)^y.
fn as_the_reference(shape: SketchShape, reaches: (f64, f64, f64), widths: (f64, f64, f64)) -> f64 {
    let both = reaches.0 + reaches.1 - reaches.2;
    let overlap = widths.0 + widths.1 - widths.2;
    let (one, other) = ((reaches.0 * widths.0).max(1.0), (reaches.1 * widths.1).max(1.0));
    let shared = (both * overlap).max(1.0);
    let (a, m) = (shape.decay_rate, shape.size as f64);
    let first = (-a / m).exp_m1() / (-a).exp_m1();
    let more_empty = |people: f64| {
        let approximated: f64 = (0..shape.size).map(|i| (-people * first * (-a * i as f64 / m).exp()).exp()).sum();
        approximated - variance::expected_empty(shape, people).unwrap()
    };
    let counted = variance::active_covariance(shape, one, other, shared).unwrap() + more_empty(one + other - shared)
        - more_empty(one + other);
    let slopes = variance::active_slope(shape, one).unwrap() * variance::active_slope(shape, other).unwrap();
    counted / (widths.0 * widths.1 * slopes) + both * (overlap / widths.0 / widths.1 - 1.0)
}

#[test]
fn covariances_of_sketches() {
    for (line, decay_rate, reaches, widths, expected) in [
        (95, 15.0, (1.0, 1.0, 2.0), (0.5, 0.4, 0.5), 0.000_562_525_536_043_962),
        (109, 15.0, (1e6, 3e8, 3e8), (0.02, 0.01, 0.02), 156_079_036.592_978_8),
        (124, 100.0, (3e8, 3e8, 6e8), (0.3, 0.4, 0.7), 428_562.315_218_717_15),
    ] {
        let shape = SketchShape { decay_rate, size: 100_000 };
        close(as_the_reference(shape, reaches, widths), expected, format_args!("line {line}"));
        let (one, other) = intervals(widths.0, widths.1, widths.2);
        let sketch = |reach: f64, interval: Interval| ReachMeasurement {
            methodology: Methodology::LiquidLegionsV2(shape),
            reach,
            interval,
            noise_variance: 0.0,
        };
        let found = variance::reach_covariance(&sketch(reaches.0, one), &sketch(reaches.1, other), reaches.2).unwrap();
        if line == 109 {
            close(found, expected, "line 109 without approximations");
        } else {
            // Nobody is in both: the reference's value is that of its approximations, the true one is 0.
            assert!(found.abs() < 1e-9, "line {line}: {found}");
        }
    }
}

#[test]
fn union_widths() {
    for (line, one, other, expected) in [
        (633, (0.1, 0.2), (0.3, 0.4), 0.6),
        (654, (0.1, 0.4), (0.2, 0.3), 0.4),
        (665, (0.1, 0.3), (0.1, 0.3), 0.3),
        (709, (0.8, 0.3), (0.7, 0.6), 0.6),
        // From protocols 8.9.
        (0, (0.8, 0.3), (0.3, 0.4), 0.7),
        (0, (0.5, 0.7), (0.8, 0.5), 0.8),
    ] {
        let interval = |(start, width): (f64, f64)| Interval { start, width };
        let found = interval(one).union_width(interval(other)).unwrap();
        assert!((found - expected).abs() < 1e-9, "line {line}: {found}");
        assert!((interval(other).union_width(interval(one)).unwrap() - expected).abs() < 1e-9);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let range = |error: Error| assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    let good = counted(10.0, Interval::FULL);
    for bad in [f64::NAN, -1.0, f64::INFINITY, 1e200] {
        range(variance::reach(&ReachMeasurement { reach: bad, ..good }).unwrap_err());
        range(variance::reach(&ReachMeasurement { noise_variance: bad, ..good }).unwrap_err());
        range(variance::reach_covariance(&good, &good, bad).unwrap_err());
        range(ScalarMeasurement::reach(bad, 1.0, 0.0).variance().unwrap_err());
        range(ScalarMeasurement::watch_duration(1.0, bad, 1.0, 0.0).variance().unwrap_err());
        range(variance::linear_combination(&[bad.abs() * 1e200], &[1.0], |_, _| Ok(0.0)).unwrap_err());
        range(variance::linear_combination(&[1.0], &[bad], |_, _| Ok(0.0)).unwrap_err());
        range(variance::expected_empty(SketchShape { decay_rate: 12.0, size: 10 }, bad).unwrap_err());
        let frequency = FrequencyMeasurement { reach: good, shares: &[0.5, 0.5], noise_variance: bad };
        range(variance::frequency(&frequency).unwrap_err());
    }
    for width in [0.0, -0.1, 1.1, f64::NAN] {
        range(variance::reach(&counted(10.0, from_zero(width))).unwrap_err());
        range(ScalarMeasurement::reach(10.0, width, 0.0).variance().unwrap_err());
    }
    range(variance::reach(&counted(10.0, Interval { start: 1.5, width: 0.5 })).unwrap_err());
    for methodology in
        [single(0.0, 10), llv2(f64::NAN, 10), llv2(701.0, 10), single(12.0, 0), FrequencyVector { size: 0 }]
    {
        range(variance::reach(&ReachMeasurement { methodology, ..good }).unwrap_err());
    }
    for shares in [&[] as &[f64], &[0.7, 0.7], &[-0.1, 0.5], &[f64::NAN]] {
        range(variance::frequency(&FrequencyMeasurement { reach: good, shares, noise_variance: 0.0 }).unwrap_err());
    }
    let shape = SketchShape { decay_rate: 12.0, size: 100 };
    range(variance::active_covariance(shape, 5.0, 5.0, 6.0).unwrap_err());
    range(variance::linear_combination(&[1.0], &[], |_, _| Ok(0.0)).unwrap_err());
    // A metric needs the union of its publishers.
    range(variance::reach_metric(&[term(1.0, 0b01, good), term(1.0, 0b10, good)]).unwrap_err());
    // Two sketches of different shapes.
    let sketch = |size: u64| ReachMeasurement { methodology: llv2(12.0, size), ..good };
    let error = variance::reach_covariance(&sketch(100), &sketch(200), 15.0).unwrap_err();
    assert!(matches!(error, Error::Incompatible { .. }), "{error}");
    // A sketch that is full many times over.
    let full = ReachMeasurement { methodology: llv2(1.0, 10), reach: 1e9, ..good };
    assert!(matches!(variance::reach(&full).unwrap_err(), Error::Saturated { .. }));
    assert!(matches!(variance::reach_covariance(&full, &full, 1e9).unwrap_err(), Error::Saturated { .. }));
}

#[test]
fn shapes_come_from_sketches() {
    let params = Params::new(12.0, 100_000, 10_000_000).unwrap();
    assert_eq!(SketchShape::from(&params), SketchShape { decay_rate: 12.0, size: 100_000 });
}

fn arb_methodology() -> impl Strategy<Value = Methodology> {
    let shape = || (1e-4..100.0_f64, 1_u64..1_000_000).prop_map(|(decay_rate, size)| SketchShape { decay_rate, size });
    prop_oneof![
        Just(Deterministic),
        shape().prop_map(Methodology::Sketch),
        shape().prop_map(Methodology::LiquidLegionsV2),
        (2_u64..100_000_000).prop_map(|size| FrequencyVector { size }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn variances_are_numbers_and_not_negative(
        methodology in arb_methodology(),
        log_reach in -3.0..20.0_f64,
        start in 0.0..1.0_f64,
        width in 1e-4..=1.0_f64,
        noise_variance in prop_oneof![Just(0.0), 0.0..1e12_f64],
        weights in proptest::collection::vec(0.0..1.0_f64, 1..12),
    ) {
        let reach = ReachMeasurement { methodology, reach: log_reach.exp() - 0.04, interval: Interval { start, width }, noise_variance };
        let reach = ReachMeasurement { reach: reach.reach.max(0.0), ..reach };
        let total: f64 = weights.iter().sum::<f64>().max(1e-9);
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let result = variance::reach(&reach);
        if let Err(error) = &result {
            let saturated = matches!(error, Error::Saturated { .. });
            prop_assert!(saturated, "{}", error);
        }
        if let Ok(found) = result {
            prop_assert!(found.is_finite() && found >= 0.0, "{}", found);
            let covariance = variance::reach_covariance(&reach, &reach, reach.reach).unwrap();
            prop_assert!(covariance.is_finite());
            // A measurement without noise varies with itself as much as it varies.
            if noise_variance == 0.0 && !matches!(methodology, FrequencyVector { .. }) {
                prop_assert!((covariance.max(0.0) - found).abs() <= 1e-6 * found + 1e-6, "{} {}", covariance, found);
            }
            if let Ok(lists) = variance::frequency(&FrequencyMeasurement { reach, shares: &shares, noise_variance }) {
                for list in [lists.relative, lists.relative_k_plus, lists.count, lists.count_k_plus] {
                    prop_assert!(list.iter().all(|variance| variance.is_finite() && *variance >= 0.0), "{:?}", list);
                }
            }
        }
    }

    #[test]
    fn intervals_overlap_alike_from_both_sides(one in (0.0..1.0_f64, 0.001..=1.0_f64), other in (0.0..1.0_f64, 0.001..=1.0_f64)) {
        let (one, other) = (Interval { start: one.0, width: one.1 }, Interval { start: other.0, width: other.1 });
        let union = one.union_width(other).unwrap();
        prop_assert!((union - other.union_width(one).unwrap()).abs() < 1e-12);
        prop_assert!(union >= one.width.max(other.width) - 1e-12 && union <= (one.width + other.width).min(1.0) + 1e-12);
    }
}
