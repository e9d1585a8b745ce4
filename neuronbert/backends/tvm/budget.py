"""How long a compile may look for fast schedules (tuning.py): the option ``tuning_minutes``, checked. Light."""

from neuronbert.errors import UsageError, as_real, shown_value

# On two cores some 1,500 measurements, of a model's twenty functions: the demo's get no faster after a third of them.
DEFAULT_TUNING_MINUTES = 10.0
MOST_TUNING_MINUTES = 7 * 24 * 60.0  # a week


def checked_minutes(minutes: float) -> float:
    """``minutes`` as a float; UsageError unless it is a number from 0, for no tuning at all, to a week."""
    number = as_real(minutes)
    if number is None or not 0 <= number <= MOST_TUNING_MINUTES:
        raise UsageError(
            f"tuning_minutes must be a number from 0 to {MOST_TUNING_MINUTES:.0f}, not {shown_value(minutes)}",
            hint="tuning_minutes=10; 0 takes schedules unmeasured",
            field="tuning_minutes",
        )
    return number
