//! How many records may be rejected before a pipeline is taken to reject everything.

/// Shares are looked at from so many records on: a few bad ones at the beginning say nothing.
const RECORDS_MIN: u64 = 100;
/// Records after which counting begins anew, so that a long good past does not hide a bad present.
const RECORDS_MAX: u64 = 10_000;

/// Watches the share of bad records among the newest ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    share_max: Option<f64>,
    bad: u64,
    /// Good records that there had been when counting began.
    good_before: u64,
}

impl Budget {
    /// A budget of this share, from 0 to 1; `None` for no limit.
    #[must_use]
    pub fn new(share_max: Option<f64>) -> Self {
        Budget { share_max, bad: 0, good_before: 0 }
    }

    /// Notes a bad record after `good` good ones in all. True: with it there are too many.
    pub fn reject(&mut self, good: u64) -> bool {
        let Some(share_max) = self.share_max else { return false };
        if good.saturating_sub(self.good_before) + self.bad >= RECORDS_MAX {
            (self.bad, self.good_before) = (0, good);
        }
        self.bad += 1;
        let records = good.saturating_sub(self.good_before) + self.bad;
        records >= RECORDS_MIN && self.bad as f64 > share_max * records as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the record at which the budget is overdrawn, where one of `every` is bad.
    fn overdrawn(share_max: Option<f64>, every: u64, records: u64) -> Option<u64> {
        let mut budget = Budget::new(share_max);
        let mut good = 0;
        for n in 1..=records {
            if n % every == 0 {
                if budget.reject(good) {
                    return Some(n);
                }
            } else {
                good += 1;
            }
        }
        None
    }

    #[test]
    fn a_pipeline_that_rejects_everything_is_noticed_and_one_that_rejects_little_is_not() {
        assert_eq!(overdrawn(Some(0.5), 1, 1_000), Some(100));
        assert_eq!(overdrawn(Some(0.5), 3, 100_000), None);
        assert_eq!(overdrawn(Some(0.1), 3, 100_000), Some(102));
        assert_eq!(overdrawn(Some(0.0), 50, 1_000), Some(100));
        assert_eq!(overdrawn(Some(0.0), 1, 99), None, "too few to say");
        assert_eq!(overdrawn(None, 1, 100_000), None);
        assert_eq!(overdrawn(Some(1.0), 1, 100_000), None);
    }

    #[test]
    fn a_long_good_past_does_not_hide_a_bad_present() {
        let mut budget = Budget::new(Some(0.5));
        assert!(!budget.reject(1_000_000));
        let overdrawn = (0..200).position(|_| budget.reject(1_000_000));
        assert_eq!(overdrawn, Some(98), "counted from the first bad one on");
    }
}
