"""Small results as pandas DataFrames, without matplotlib, for commands that draw no plots."""

from typing import cast

import pandas as pd
from pyspark.sql import DataFrame

from bronze.runtime.session import check_running


def collect_frame(rows: DataFrame) -> pd.DataFrame:
    """The rows of a small query as a pandas DataFrame.

    Raises:
        BronzeError: The session was stopped.
    """
    check_running(rows.sparkSession)
    return cast(pd.DataFrame, rows.toPandas())
