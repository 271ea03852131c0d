"""Settings of what a run costs."""

from pydantic import BaseModel, ConfigDict, Field


class EnergySettings(BaseModel):
    """Turns time into energy and carbon as the paper does (section 6): watts x hours x PUE x kg CO2 a kWh."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    watts: float = Field(
        45.0, gt=0, description="power of the whole machine at work, where no meter can be read"
    )
    pue: float = Field(1.1, ge=1, description="power usage effectiveness of the building (paper: 1.1)")
    kg_co2_per_kwh: float = Field(
        0.385, ge=0, description="carbon intensity of the grid (paper: 0.385, the US average)"
    )
