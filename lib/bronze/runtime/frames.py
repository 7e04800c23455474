"""Small results as pandas DataFrames, for commands that draw no plots and so load no matplotlib."""

from typing import cast

import pandas as pd
from pyspark.sql import DataFrame


def collect_frame(rows: DataFrame) -> pd.DataFrame:
    """The rows of a small query as a pandas DataFrame."""
    return cast(pd.DataFrame, rows.toPandas())
