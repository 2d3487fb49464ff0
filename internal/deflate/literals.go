package deflate

// A literals predictor expects no matches at all, as encoders write that only shorten
// each byte, for speed or because the data is compressed already.
type literals struct{}

func (literals) restart(int64, int)               {}
func (literals) unit(int64, int64, bool, bool)    {}
func (literals) predict(int64) (length, dist int) { return 1, 0 }
func (literals) accept(int64, int, int)           {}
func (literals) skip(int64, int)                  {}
func (literals) rank(int64, int, int) int         { return -1 }
func (literals) at(int64, int, int) int           { return 0 }
