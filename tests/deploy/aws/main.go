// The AWS provider's schema and nothing else: enough for `tofu validate`, and for `tofu test` with a mocked provider.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"log"
	"slices"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

//go:embed schema.json
var described []byte

type attribute struct {
	Type     any  `json:"type"`
	Required bool `json:"required"`
	Computed bool `json:"computed"`
}

type block struct {
	Nesting    string               `json:"nesting"`
	Required   bool                 `json:"required"`
	Attributes map[string]attribute `json:"attributes"`
	Blocks     map[string]block     `json:"blocks"`
}

// What is not answered here is never asked: the embedded interface is nil.
type server struct {
	tfprotov5.ProviderServer
	resources map[string]*tfprotov5.Schema
}

func typeOf(described any) tftypes.Type {
	simple := map[string]tftypes.Type{"string": tftypes.String, "number": tftypes.Number, "bool": tftypes.Bool}
	if name, ok := described.(string); ok {
		return simple[name]
	}
	parts := described.([]any)
	element := simple[parts[1].(string)]
	switch parts[0] {
	case "map":
		return tftypes.Map{ElementType: element}
	case "set":
		return tftypes.Set{ElementType: element}
	default:
		return tftypes.List{ElementType: element}
	}
}

func blockOf(b block) *tfprotov5.SchemaBlock {
	made := &tfprotov5.SchemaBlock{}
	for name, a := range b.Attributes {
		made.Attributes = append(made.Attributes, &tfprotov5.SchemaAttribute{
			Name: name, Type: typeOf(a.Type), Required: a.Required, Optional: !a.Required && !a.Computed, Computed: !a.Required,
		})
	}
	for name, inner := range b.Blocks {
		nested := &tfprotov5.SchemaNestedBlock{TypeName: name, Block: blockOf(inner)}
		switch inner.Nesting {
		case "set":
			nested.Nesting = tfprotov5.SchemaNestedBlockNestingModeSet
		case "single":
			nested.Nesting = tfprotov5.SchemaNestedBlockNestingModeSingle
		default:
			nested.Nesting = tfprotov5.SchemaNestedBlockNestingModeList
		}
		if inner.Required && inner.Nesting != "single" {
			nested.MinItems = 1
		}
		made.BlockTypes = append(made.BlockTypes, nested)
	}
	return made
}

func (s *server) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	answer := &tfprotov5.GetMetadataResponse{ServerCapabilities: &tfprotov5.ServerCapabilities{}}
	for name := range s.resources {
		answer.Resources = append(answer.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	slices.SortFunc(answer.Resources, func(a, b tfprotov5.ResourceMetadata) int {
		if a.TypeName < b.TypeName {
			return -1
		}
		return 1
	})
	return answer, nil
}

func (s *server) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	text := func(name string) *tfprotov5.SchemaAttribute {
		return &tfprotov5.SchemaAttribute{Name: name, Type: tftypes.String, Optional: true}
	}
	role := &tfprotov5.SchemaBlock{Attributes: []*tfprotov5.SchemaAttribute{text("role_arn"), text("external_id")}}
	provider := &tfprotov5.SchemaBlock{
		Attributes: []*tfprotov5.SchemaAttribute{text("region")},
		BlockTypes: []*tfprotov5.SchemaNestedBlock{
			{TypeName: "assume_role", Block: role, Nesting: tfprotov5.SchemaNestedBlockNestingModeList},
		},
	}
	return &tfprotov5.GetProviderSchemaResponse{Provider: &tfprotov5.Schema{Block: provider}, ResourceSchemas: s.resources}, nil
}

func (s *server) PrepareProviderConfig(_ context.Context, r *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (s *server) ConfigureProvider(context.Context, *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	return &tfprotov5.ConfigureProviderResponse{}, nil
}

func (s *server) ValidateResourceTypeConfig(context.Context, *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

// Asked when a test cleans up after itself.
func (s *server) UpgradeResourceState(_ context.Context, r *tfprotov5.UpgradeResourceStateRequest) (*tfprotov5.UpgradeResourceStateResponse, error) {
	kind := s.resources[r.TypeName].ValueType()
	value, err := r.RawState.Unmarshal(kind)
	if err != nil {
		return nil, err
	}
	state, err := tfprotov5.NewDynamicValue(kind, value)
	return &tfprotov5.UpgradeResourceStateResponse{UpgradedState: &state}, err
}

func (s *server) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func main() {
	var all map[string]block
	if err := json.Unmarshal(described, &all); err != nil {
		log.Fatalf("schema.json: %v", err)
	}
	resources := map[string]*tfprotov5.Schema{}
	for name, b := range all {
		resources[name] = &tfprotov5.Schema{Block: blockOf(b)}
	}
	serve := func() tfprotov5.ProviderServer { return &server{resources: resources} }
	if err := tf5server.Serve("aws", serve); err != nil {
		log.Fatal(err)
	}
}
